"""Dispatch: which delivery is attempted next, and what follows from the answer to the attempt."""
