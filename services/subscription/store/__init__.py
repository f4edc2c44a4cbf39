"""Store: the registry's database: its rows, their history, and the sealing of secrets."""
