"""HTTP: the listeners of the REST API and of the admin ports, and the limits that protect them."""
