"""Write files whole or not at all, and tell files apart by hash."""

import hashlib
import json
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO, TextIO

from facemask.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
CHECKSUM_LENGTH = 64  # bytes: a SHA-256 in hexadecimal
LARGEST_MODEL = 1 << 28  # bytes
DAMAGED = "damaged, or no model of this version (its checksum is wrong or missing); copy it again, or train it anew"
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
        _check_nobody_writes(partial)
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
        _lock(file, path)
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
    """A file to whose end JSON lines are added, each at once and whole, or not at all."""

    def __init__(self, path: str | Path, name: str | Path | None = None) -> None:
        """Messages call it `name`. Raises OSError if it cannot be opened, InputError if another run has it open."""
        self.path, self.name, self.origin = Path(path), name or path, path  # origin: where lines of before come from
        self.count = 0  # lines written
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
        _lock(self._file, self.name)
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":  # a writer was killed within a line
                self._write(b"\n")

    def records(self) -> Iterator[dict]:
        """Yield what the lines say, those of before included. Raises InputError if one is no JSON object."""
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if not isinstance(record, dict):
                    raise InputError(f"{self.origin}: line {number} is broken; remove it, or leave out --resume")
                yield record

    def write(self, record: dict) -> None:
        """Add a line. Raises InputError if it cannot be written whole."""
        self._write(json.dumps(record).encode() + b"\n")
        self.count += 1

    def _write(self, data: bytes) -> None:
        whole = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(whole)
            raise InputError(f"{self.name}: cannot be written ({error.strerror or error}); {FREE_SPACE}") from error

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _lock(file: BinaryIO | TextIO, name: str | Path) -> None:
    """Keep other runs from an open file, until it is closed. Raises InputError, calling it `name`, if another has it."""
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{name}: another run is writing it; wait for its end, or name another file") from error
        except OSError:  # some network drives have no locks
            logger.debug("%s: cannot be locked", name)


def _check_nobody_writes(path: Path) -> None:
    with open(path, "r+b") as file:  # network drives lock what can be written alone
        _lock(file, path)


@contextmanager
def json_lines(path: str | Path) -> Iterator[JsonLines]:
    """Yield JSON lines that take the name `path` when the block ends, also by an error, if there are any.

    Until then they are NAME.partial.SUFFIX; what a killed process left there is given another name. Raises InputError as
    `partial_path` does.
    """
    partial = fresh_partial_path(path)
    lines = JsonLines(partial, path)
    try:
        with lines:
            yield lines
    finally:
        if lines.count:
            os.replace(partial, path)
        else:
            partial.unlink()


@contextmanager
def resumable_json_lines(path: str | Path, resume: bool) -> Iterator[JsonLines]:
    """Yield JSON lines that take the name `path` when the block ends without an error, and can be gone on with otherwise.

    Until then they are NAME.partial.SUFFIX. With `resume` those of before are kept, the whole lines of that file or else
    of `path`; without, such a file is given another name. Raises InputError as `partial_path` does.
    """
    path = Path(path)
    if resume:
        partial = partial_path(path)
        if copied := path.is_file() and not partial.exists():
            copy = partial.with_name(f"{partial.name}.copy")
            copy.unlink(missing_ok=True)
            try:
                with open(path, "rb") as source, open(copy, "xb") as target:
                    shutil.copyfileobj(source, target)
                os.replace(copy, partial)
            finally:
                copy.unlink(missing_ok=True)
        _cut_unfinished_line(partial)
    else:
        partial, copied = fresh_partial_path(path), False
    lines = JsonLines(partial, path)
    lines.origin = path if copied else partial
    try:
        with lines:
            yield lines
    except BaseException:
        if partial.stat().st_size == 0 or (copied and lines.count == 0):
            partial.unlink()
        else:
            logger.warning("not finished: what was done is in %s; the same command with --resume goes on", partial)
        raise
    os.replace(partial, path)


def _cut_unfinished_line(path: Path) -> None:
    """Remove what a killed process wrote of its last line, where there is such a file."""
    if path.is_file() and path.stat().st_size:
        _check_nobody_writes(path)
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            whole = data.rfind(b"\n") + 1
        os.truncate(path, whole)


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


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(data: bytes) -> bytes:
    """Return the SHA-256 of `data` in hexadecimal, which a model file ends with: it is that of all that stands before."""
    return hashlib.sha256(data).hexdigest().encode()


def read_model(path: str | Path) -> bytes:
    """Return the bytes of a model file of this project.

    Raises InputError if it is missing, too long for one, or does not end with the checksum of the rest: then it is
    damaged, cut off, or not of this project.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is no ordinary file; give a model of this project")
        if path.stat().st_size > LARGEST_MODEL:
            raise InputError(f"{path}: {path.stat().st_size / 1e9:.1f} GB are too many for a model of this project; give another")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the name") from error
    if data[-CHECKSUM_LENGTH:] != checksum(memoryview(data)[:-CHECKSUM_LENGTH]):
        raise InputError(f"{path}: {DAMAGED}")
    return data
