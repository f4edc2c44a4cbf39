"""Errors of delivery. Each says whether trying again can help."""

from services.runtime.lifecycle import FatalError


class DeliveryError(Exception):
    """Delivery could not do what it was asked to."""


class RegistryAwayError(DeliveryError):
    """The registry gives no answer; the message is the reason's name. Ask again later."""


class LedgerFullError(DeliveryError):
    """The disk is full; nothing was written, and the same flush is to be tried again."""


class LeaseLostError(DeliveryError, FatalError):
    """Another worker has taken over; this one must stop and can write nothing more."""
