"""HTTP: the listeners of the REST API and of the admin ports, and what guards them."""
