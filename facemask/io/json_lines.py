"""Files of JSON lines, each written at once and whole."""

import json
import logging
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from facemask.errors import InputError
from facemask.io.outputs import FREE_SPACE, check_nobody_writes, fresh_partial_path, lock, partial_path

logger = logging.getLogger(__name__)


class JsonLines(AbstractContextManager):
    """A file to whose end JSON lines are added, each at once and whole, or not at all."""

    def __init__(self, path: str | Path, name: str | Path | None = None) -> None:
        """Messages call it `name`. Raises OSError if it cannot be opened, InputError if another run has it open."""
        self.path, self.name, self.origin = Path(path), name or path, path  # origin: where lines of before come from
        self.count = 0  # lines written
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
        lock(self._file, self.name)
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
        check_nobody_writes(path)
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            whole = data.rfind(b"\n") + 1
        os.truncate(path, whole)
