"""Bad input and bad circumstances: each ends in one clear error that says what to change, and nothing is lost."""
