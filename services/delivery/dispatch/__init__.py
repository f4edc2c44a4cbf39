"""Dispatch: which delivery goes next, and what follows from its answer."""
