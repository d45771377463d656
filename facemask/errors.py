"""Errors that a user can cause and fix."""


class InputError(Exception):
    """Something from the user (file, folder, model, camera, output) cannot be used.

    The message is `what: why; what to do`, on one line: the scripts print it after `error: ` and exit 1.
    """


class OutputError(InputError):
    """An output cannot be written, and no further one can, as on a full disk: the run ends."""
