"""Errors that a user can cause and mend."""


class InputError(Exception):
    """Something the user gave (file, folder, model, camera, output) cannot be used.

    The message reads `what: why; what to do`, on one line: the scripts print it after `error: ` and exit 1.
    """
