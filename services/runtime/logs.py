"""Logs: writes one line to standard error for each thing that happened, with an event name and fields."""

import logging
import sys
from typing import Literal

import structlog

LogLevel = Literal["debug", "info", "warning", "error"]
Logger = structlog.typing.FilteringBoundLogger

# gRPC logs this error with its traceback when a peer disappears while an answer is written to it. The class is not public.
_PEER_GONE = "ExecuteBatchError"


def configure_logs(service: str, level: LogLevel) -> None:
    """Set up structlog for this process: key=value lines, UTC times, the service's name on each."""
    structlog.configure(
        processors=[
            _named(service),
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
    # Libraries log through the standard module; only their warnings and errors are of interest.
    logging.basicConfig(level=logging.WARNING, handlers=[_Libraries()])


class _Libraries(logging.Handler):
    """Writes the log records of libraries as lines of our own form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        try:
            error = record.exc_info if record.exc_info and record.exc_info[0] else None
            if error and error[0] is not None and error[0].__name__ == _PEER_GONE:
                logger().debug("rpc.peer_gone", detail=record.getMessage())
                return
            logger().log(record.levelno, "library.logged", logger=record.name, detail=record.getMessage(), exc_info=error)
        except Exception:  # noqa: BLE001 - the standard module's own rule: a failure to log must not stop the program
            self.handleError(record)


def set_log_level(level: LogLevel) -> None:
    """Log only lines of this level and above from now on."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))


def _named(service: str) -> structlog.typing.Processor:
    """Return a processor that adds the service's name to each line, also in callbacks from a thread without a context."""

    def name(_logger: object, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        fields.setdefault("service", service)
        return fields

    return name


def logger() -> Logger:
    """Return the logger of this process."""
    log: Logger = structlog.get_logger()
    return log
