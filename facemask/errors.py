"""Errors that a user can cause and mend."""


class InputError(Exception):
    """Something the user gave (file, folder, model, camera, output) cannot be used.

    The message reads `what: why; what to do`, on one line: the scripts print it after `error: ` and exit 1.
    """


class OutputError(InputError):
    """Where outputs go nothing can be written any more, as on a full disk: there is no use in going on."""
