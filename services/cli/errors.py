"""Errors: what a command ends with when it cannot do what was asked."""


class CommandError(Exception):
    """The command failed; the message is one line that says what to do next.

    `code` is the exit code: 1 where the world was not as needed, 2 where the command was not.
    """

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
