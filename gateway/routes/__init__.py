"""Routes: the handlers of the REST API, one module for each resource. A handler translates, calls a service, and translates back."""
