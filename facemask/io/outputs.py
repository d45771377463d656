"""Check and lock the places of outputs, and write files whole or not at all."""

import logging
import os
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from facemask.errors import InputError
from facemask.io.find_images import WRITTEN_SUFFIXES

if TYPE_CHECKING:
    from filelock import BaseFileLock

CASE_BLIND = ("win32", "darwin")  # `sys.platform`s whose usual file systems take two names that differ in case for one
FREE_SPACE = "free some space, or choose another place"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where annotated images go: a file for one image, or a folder."""

    path: Path
    is_folder: bool

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Take what the command line says (an argparse type): what ends in a slash is a folder, also before there is one."""
        path = Path(os.path.expanduser(text))
        return cls(path, text.endswith((os.sep, "/")) or path.is_dir() or not path.suffix)

    def for_images(self, count: int) -> "Place":
        """Return the place for that number of images: several go into a folder, unless the name is an image's."""
        is_folder = self.is_folder or (count > 1 and self.path.suffix.lower() not in WRITTEN_SUFFIXES)
        return replace(self, is_folder=is_folder)


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are missing. Raises InputError if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make this folder ({error.strerror}); choose another place") from error


def partial_path(path: str | Path) -> Path:
    """Return the name, beside `path`, of its content until it is whole: NAME.partial.SUFFIX.

    For an image it is NAME.SUFFIX.partial, which is not an image's name when its folder is an input. The folder is made if
    there is none. Raises InputError if `path` cannot be written, or if something else than an unfinished output has that name.
    """
    path = Path(path)
    partial = _check_partial(path)
    make_folder(path.parent)
    return partial


def _check_partial(path: Path) -> Path:
    """Return what `partial_path` does, and raise what it raises, without making the folder."""
    check_writable(path)
    is_image = path.suffix.lower() in WRITTEN_SUFFIXES
    partial = path.with_name(f"{path.name}.partial" if is_image else f"{path.stem}.partial{path.suffix}")
    if partial.is_symlink() or (partial.exists() and not partial.is_file()):
        raise InputError(f"{partial}: not a regular file, and in the way; remove it")
    return partial


def set_aside(path: Path) -> None:
    """Rename an unfinished output of a killed process, if there is one, so that it is kept."""
    if path.is_file() and path.stat().st_size:
        number = next(n for n in count(1) if not path.with_stem(f"{path.stem}-{n}").exists())
        kept = path.with_stem(f"{path.stem}-{number}")
        path.rename(kept)
        logger.warning("%s: was not finished; it is kept as %s", path, kept)


def fresh_partial_path(path: str | Path) -> Path:
    """Return what `partial_path` does, once an unfinished output of that name is set aside."""
    partial = partial_path(path)
    set_aside(partial)
    return partial


def put_in_place(partial: Path, path: str | Path) -> None:
    """Give a whole file its name. Raises InputError if that cannot be, as on Windows if another program has `path` open."""
    try:
        os.replace(partial, path)
    except OSError as error:
        why = error.strerror or error
        remedy = "close it in other programs" if isinstance(error, PermissionError) else "move it away"
        raise InputError(f"{path}: cannot be replaced ({why}); {remedy}; it is in {partial.name}") from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that takes the name `path` when the block ends without an error, and is removed otherwise.

    Raises InputError as `partial_path` does, and if a whole file cannot take the name: it is kept then.
    """
    temporary = partial_path(path)
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    put_in_place(temporary, path)


@contextmanager
def text_output(path: str | Path, *, newline: str | None = None) -> Iterator[TextIO]:
    """Yield a UTF-8 text file that takes the name `path` when the block ends without an error, as `atomic_path` does."""
    # surrogateescape: file names need not be UTF-8, and are written as they are.
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline=newline) as file,
    ):
        yield file
        file.close()  # on Windows an open file cannot be renamed


def lock_output(path: Path, name: str | Path) -> "BaseFileLock":
    """Lock the file `path`, which need not exist, nor its folder, against other runs; `unlock_output` ends it.

    Raises InputError, calling the file `name`, if another run has locked it. A file system without locks is no error.
    """
    from filelock import FileLock, Timeout  # here, as it takes longer to import than this package

    make_folder(path.parent)
    lock = FileLock(f"{path}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{name}: another run is writing it; wait for its end, or name another file") from error
    except (OSError, NotImplementedError) as error:  # as on some network drives
        logger.debug("%s: cannot be locked (%s)", name, error)
    return lock


def unlock_output(lock: "BaseFileLock") -> None:
    """Remove the lock's file, and let other runs write the output."""
    if lock.is_locked:
        with suppress(OSError):  # on Windows, where it is open
            os.unlink(lock.lock_file)
        lock.release()


def check_writable(path: str | Path) -> None:
    """Raise InputError unless a file of that name can be made, and its folder if there is none, without making them."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file; choose another name")
    if path.exists() and is_held_open(path, sys.platform):
        raise InputError(f"{path}: is open in another program; close it there, or choose another name")
    existing = next(filter(os.path.exists, path.parents), path.parent)
    if not existing.is_dir():
        raise InputError(f"{path}: {existing} is not a folder; choose another place")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error.strerror}); choose another place") from error


def is_held_open(path: Path, platform: str) -> bool:
    """Return whether, on a `sys.platform`, a file cannot be replaced as another program has it open: on Windows alone."""
    if platform != "win32":
        return False
    try:
        with open(path, "r+b"):
            return False
    except PermissionError:
        return True


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise InputError unless all outputs can be written, none over an input and no two to the same file; make nothing."""
    inputs = list(inputs)
    taken = {_place(path, sys.platform) for path in inputs}
    files: set[tuple[int, int]] | None = None  # the inputs, however they are named
    for output in outputs:
        partial = _check_partial(Path(output))
        if files is None and os.path.exists(output):
            files = set(filter(None, map(_file_id, inputs)))
        is_input = files is not None and _file_id(output) in files
        place = _place(output, sys.platform)
        if is_input or place in taken or _place(partial, sys.platform) in taken:
            raise InputError(f"{output}: is an input, or another output too; choose another name for it")
        taken.add(place)


def fold_name(name: str) -> str:
    """Return what two names have in common that are the same to a file system that ignores case, as Windows' and Apple's."""
    return unicodedata.normalize("NFC", name).casefold()


def _place(path: str | Path, platform: str) -> str:
    """Return what two names of one file have in common on a `sys.platform`, also before there is a file."""
    place = os.path.realpath(path)  # which accepts a link to itself
    return fold_name(place) if platform in CASE_BLIND else place


def _file_id(path: str | Path) -> tuple[int, int] | None:
    """Return what two names of one file have in common, as where the file system ignores case; None if there is no file."""
    with suppress(OSError, ValueError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None
