"""The one exception that a user is meant to read, and how a command line says it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


class UserError(ValueError):
    """Bad input from outside: a configuration value, a file, a ROM name.

    The message is a single line that names the key or the file, says what is wrong with it and
    how to mend it. The command line prints that line without a traceback and exits with status 2.
    Programming mistakes inside the suite raise ordinary exceptions instead.
    """

    def __init__(self, message: str) -> None:
        # What is quoted from elsewhere may have lines of its own.
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds: for range checks of configurations."""
    if not condition:
        raise UserError(message)


def exit_status(command: Callable[[], None]) -> int:
    """Run what a command line asks for; what goes wrong outside is said in one line on stderr."""
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: give the same command again", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0
