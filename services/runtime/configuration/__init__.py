"""Configuration: reads settings from the environment and files, checks them, and reloads some of them while a service runs."""
