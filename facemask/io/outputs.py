"""Write files whole or not at all, and check and lock where they go."""

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO, TextIO

from facemask.errors import InputError
from facemask.io.find_images import IMAGE_SUFFIXES

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

FREE_SPACE = "free some space, or choose another place"

logger = logging.getLogger(__name__)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where it is missing. Raises InputError if it cannot."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make this folder ({error.strerror}); choose another place") from error


def partial_path(path: str | Path) -> Path:
    """Return the name, beside `path`, under which it is written until it is whole: NAME.partial.SUFFIX.

    Of a picture it is NAME.SUFFIX.partial, which no folder run takes for a picture. Raises InputError if `path` cannot be
    written, or what has that name already is not what an earlier run left.
    """
    path = Path(path)
    check_writable(path)
    is_picture = path.suffix.lower() in IMAGE_SUFFIXES
    partial = path.with_name(f"{path.name}.partial" if is_picture else f"{path.stem}.partial{path.suffix}")
    if partial.is_symlink() or (partial.exists() and not partial.is_file()):
        raise InputError(f"{partial}: is no ordinary file, and in the way; remove it")
    return partial


def fresh_partial_path(path: str | Path) -> Path:
    """Return what `partial_path` does; what a killed process left there is given another name, and kept."""
    partial = partial_path(path)
    if partial.is_file() and partial.stat().st_size:
        check_nobody_writes(partial)
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

    After an error what was written stays under the temporary name, `NAME.partial.SUFFIX`; what a killed process left there
    is given another name. Raises InputError as `partial_path` does.
    """
    temporary = fresh_partial_path(path)
    # surrogateescape: file names need not be UTF-8, and are written as they are.
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline=newline, buffering=1) as file:
        lock(file, path)
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


def lock(file: BinaryIO | TextIO, name: str | Path) -> None:
    """Keep other runs from an open file, until it is closed. Raises InputError, calling it `name`, if another has it."""
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{name}: another run is writing it; wait for its end, or name another file") from error
        except OSError:  # some network drives have no locks
            logger.debug("%s: cannot be locked", name)


def check_nobody_writes(path: Path) -> None:
    with open(path, "r+b") as file:  # network drives lock what can be written alone
        lock(file, path)


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
    taken = {os.path.realpath(path) for path in inputs}  # which minds no link that leads to itself
    for output in outputs:
        check_writable(output)
        if os.path.realpath(output) in taken or os.path.realpath(partial_path(output)) in taken:
            raise InputError(f"{output}: is an input, or another output too; choose another name for it")
        taken.add(os.path.realpath(output))
