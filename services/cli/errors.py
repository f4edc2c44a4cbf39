"""Errors: the error of a command that cannot do its work."""


class CommandError(Exception):
    """The command failed; the message is one line that says what to do next.

    `code` is the exit code: 1 if the work failed, 2 if the command was wrong.
    """

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
