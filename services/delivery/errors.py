"""Errors: each of delivery's errors tells its caller whether another try can help."""

from services.runtime.service_process import FatalError


class DeliveryError(Exception):
    """An operation of delivery has failed."""


class RegistryAwayError(DeliveryError):
    """The registry does not answer; the message is the name of the reason. Try again later."""


class LedgerFullError(DeliveryError):
    """The disk is full and nothing was written. Try the same write again later."""


class LeaseLostError(DeliveryError, FatalError):
    """Another worker has taken the lease. This worker must stop, and can write nothing more."""


class LedgerInvariantError(DeliveryError):
    """A flush would lose or repeat events. Nothing was written, and the worker must stop; the message names the rows and their values."""
