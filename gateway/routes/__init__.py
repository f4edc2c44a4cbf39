"""Routes: what can be called, one module a noun. Each handler translates, calls one service, and translates back."""
