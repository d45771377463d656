"""Errors that a user can cause and fix."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Something from the user (file, folder, model, camera, output) cannot be used.

    The message is `what: why; what to do`, on one line: the scripts print it after `error: ` and exit 1.
    """


def one_line(text: str) -> str:
    """Return text with line feeds, control characters and bytes that are not UTF-8, as file names may have, escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def error_kind(message: str) -> str:
    """Return the `why` of such a message, by which errors are counted."""
    return message.rpartition(": ")[2].partition("; ")[0]


class OutputError(InputError):
    """An output cannot be written, and no further one can, as on a full disk: the run ends."""


@contextmanager
def failure_allowed(report: Callable[[InputError], None]) -> Iterator[None]:
    """Pass an InputError of the block to `report`, as other items follow; an OutputError ends the run."""
    try:
        yield
    except OutputError:
        raise
    except InputError as error:
        report(error)
