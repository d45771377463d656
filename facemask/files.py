"""Write files whole or not at all, and tell files apart by hash."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TextIO

from facemask.errors import InputError

logger = logging.getLogger(__name__)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where it is missing. Raises InputError if it cannot."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make this folder ({error.strerror}); choose another place") from error


def partial_path(path: str | Path) -> Path:
    """Return the name, beside `path` and with its suffix, under which it is written until it is whole.

    Raises InputError if `path` cannot be written.
    """
    path = Path(path)
    check_writable(path)
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def fresh_partial_path(path: str | Path) -> Path:
    """Return what `partial_path` does; what a killed process left there is given another name, and kept."""
    partial = partial_path(path)
    if partial.is_file() and partial.stat().st_size:
        number = next(n for n in count(1) if not partial.with_stem(f"{partial.stem}-{n}").exists())
        kept = partial.with_stem(f"{partial.stem}-{number}")
        partial.rename(kept)
        logger.warning("%s: was not finished; it is kept as %s", partial, kept)
    return partial


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that takes the name `path` when the block ends without an error, and is removed otherwise.

    Raises InputError as `partial_path` does.
    """
    temporary = partial_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def text_output(path: str | Path, *, newline: str | None = None) -> Iterator[TextIO]:
    """Yield a UTF-8 text file, by lines, that takes the name `path` when the block ends without an error.

    After an error what was written stays under the temporary name, `NAME.partial.SUFFIX`. Raises InputError as
    `partial_path` does.
    """
    temporary = partial_path(path)
    # surrogateescape: file names need not be UTF-8, and are written as they are.
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline=newline, buffering=1) as file:
        try:
            yield file
        except BaseException:
            file.close()
            if temporary.stat().st_size == 0:
                temporary.unlink()
            else:
                logger.warning("not finished: what was done is in %s", temporary)
            raise
    os.replace(temporary, path)


class JsonLines(AbstractContextManager):
    """A file of JSON lines that is whole at any line: each is written at once, or not at all.

    It gets its name when the block ends, also by an error, if there is a line; until then it is NAME.partial.SUFFIX.
    With `append`, lines are added to the file of that name as they come.
    """

    def __init__(self, path: str | Path, append: bool = False) -> None:
        """Raises InputError as `partial_path` does."""
        self.path = Path(path)
        self._partial = partial_path(self.path) if append else fresh_partial_path(self.path)
        self._append = append
        self._file = open(self.path if append else self._partial, "a+b" if append else "wb", buffering=0)  # noqa: SIM115
        self._count = 0  # lines written
        if append and self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":  # a writer was killed within a line
                self._write(b"\n")

    def write(self, record: dict) -> None:
        """Add a line. Raises InputError if it cannot be written whole."""
        self._write(json.dumps(record).encode() + b"\n")
        self._count += 1

    def _write(self, data: bytes) -> None:
        whole = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(whole)
            reason = error.strerror or error
            raise InputError(f"{self.path}: cannot be written ({reason}); free some space, or choose another place") from error

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._append:
            return
        if self._count:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink()


def check_writable(path: str | Path) -> None:
    """Raise InputError unless a file of that name can be made, without making it."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no ordinary file; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{path}: folder {path.parent} does not exist; make it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error.strerror}); choose another place") from error


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise InputError unless all outputs can be written, none over an input and no two to one file."""
    taken = {path.resolve() for path in inputs}
    for output in outputs:
        check_writable(output)
        if output.resolve() in taken or partial_path(output).resolve() in taken:
            raise InputError(f"{output}: is an input, or another output too; choose another name for it")
        taken.add(output.resolve())


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
