"""Errors that the user can mend, with the exit code that each one means."""


class DeployAttnError(Exception):
    """What the user can mend: shown as a message, without a traceback.

    The message says what was asked, what was found, what is possible and
    what to do. Bugs of our own are ordinary exceptions, not this class.
    """

    exit_code = 1


class BadRequest(DeployAttnError):
    """The request cannot be served as it stands; nothing was changed."""

    exit_code = 2


class DamagedArtifact(DeployAttnError):
    """The artifact's files are not those that its manifest vouches for."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text without its full stop, or the name of its type."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
