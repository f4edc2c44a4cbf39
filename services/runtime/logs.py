"""Logs: one line per thing that happened, an event name and its fields, to standard error."""

import logging
import sys
from typing import Literal

import structlog

LogLevel = Literal["debug", "info", "warning", "error"]
Logger = structlog.typing.FilteringBoundLogger


def configure_logs(service: str, level: LogLevel) -> None:
    """Set up structlog for this process: key=value lines, UTC times, the service's name on each."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "service", "event"], bool_as_flag=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    # Libraries log through the standard module; only what is wrong is of interest.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="level=%(levelname)s logger=%(name)s %(message)s")


def logger() -> Logger:
    """Return the logger of this process."""
    log: Logger = structlog.get_logger()
    return log
