"""Store: the registry's database: its rows, their history, and what guards them."""
