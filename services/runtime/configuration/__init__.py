"""Configuration: settings, from the environment and files to values that may change while a service runs."""
