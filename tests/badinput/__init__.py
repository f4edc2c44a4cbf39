"""Bad input and bad circumstances: each is one clear error that says what to change, and nothing is lost."""
