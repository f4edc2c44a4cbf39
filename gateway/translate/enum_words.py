"""Enum words: the words of REST for the contract's enumerations."""

from collections.abc import Iterable


def word_of(name: str, prefix: str) -> str:
    """Return the word of REST for the name of an enumeration's value: ``DELIVERY_STATE_PENDING`` is ``pending``."""
    return name.removeprefix(prefix).lower()


def one_of(words: Iterable[str]) -> str:
    """Return the advice to write one of the words."""
    return "must be " + " or ".join(f'"{word}"' for word in words)
