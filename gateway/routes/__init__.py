"""Routes: the handlers of the REST API, one module for each noun. A handler translates, calls a service, and translates back."""
