"""System: the services, each as an operating-system process, all in this process, or the registry alone."""
