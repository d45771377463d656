"""Files of JSON lines, each appended at once and whole."""

import json
import logging
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from facemask.errors import InputError, OutputError
from facemask.io.outputs import FREE_SPACE, lock_output, partial_path, put_in_place, set_aside, unlock_output

logger = logging.getLogger(__name__)


def json_line(record: dict) -> bytes:
    """Return a record as a line of JSON."""
    return json.dumps(record).encode() + b"\n"


class JsonLines(AbstractContextManager):
    """A file to which JSON lines are appended, each at once and whole, or not at all; locked until it is closed."""

    def __init__(
        self, path: str | Path, name: str | Path | None = None, prepare: Callable[[Path], object] = lambda path: None
    ) -> None:
        """Open the file, which messages call `name`, and call `prepare` with its path when it is locked, before that.

        Raises OSError if it cannot be opened, InputError if another run has it open.
        """
        self.path, self.name = Path(path), name or path
        self.origin = self.path  # the file that an earlier run's lines come from
        self.count = 0  # lines appended
        self._lock = lock_output(self.path, self.name)
        try:
            prepare(self.path)
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
            if self._file.seek(0, os.SEEK_END):
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":  # a process was killed within a line
                    self._write(b"\n")
        except BaseException:
            unlock_output(self._lock)
            raise

    def records(self) -> Iterator[dict]:
        """Yield the records of all lines, an earlier run's too. Raises InputError if a line is not a JSON object."""
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if not isinstance(record, dict):
                    raise InputError(f"{self.origin}: line {number} is corrupt; remove it, or omit --resume")
                yield record

    def write(self, record: dict) -> None:
        """Append a line. Raises OutputError if it cannot be written whole."""
        self._write(json_line(record))
        self.count += 1

    def _write(self, data: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(size)
            raise OutputError(f"{self.name}: cannot be written ({error.strerror or error}); {FREE_SPACE}") from error

    def close(self) -> None:
        """Close the file, which stays locked until the block ends."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()
        unlock_output(self._lock)


@contextmanager
def json_lines(path: str | Path) -> Iterator[JsonLines]:
    """Yield JSON lines that take the name `path` when the block ends, also by an error, if there are any.

    Until then they are NAME.partial.SUFFIX; a killed process's is renamed and kept. Raises InputError as `partial_path`.
    """
    partial = partial_path(path)
    with JsonLines(partial, path, set_aside) as lines:
        try:
            yield lines
        finally:
            lines.close()
            if lines.count:
                put_in_place(partial, path)
            else:
                partial.unlink()


@contextmanager
def resumable_json_lines(path: str | Path, resume: bool) -> Iterator[JsonLines]:
    """Yield JSON lines that take the name `path` when the block ends without an error, and can be resumed otherwise.

    Until then they are NAME.partial.SUFFIX. With `resume` they continue the whole lines of that file, or else those of
    `path`; without, a killed process's are renamed and kept. Raises InputError as `partial_path`.
    """
    path, partial = Path(path), partial_path(path)
    copied = resume and path.is_file() and not partial.exists()

    def prepare_resume(partial: Path) -> None:
        if copied:
            _copy(path, partial)
        _cut_unfinished_line(partial)

    with JsonLines(partial, path, prepare_resume if resume else set_aside) as lines:
        lines.origin = path if copied else partial
        try:
            yield lines
        except BaseException:
            lines.close()
            if partial.stat().st_size == 0 or (copied and lines.count == 0):
                partial.unlink()
            else:
                logger.warning("not finished: the results so far are in %s; the same command with --resume continues", partial)
            raise
        lines.close()  # on Windows an open file cannot be renamed
        put_in_place(partial, path)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, so that `target` is whole or does not exist."""
    copy = target.with_name(f"{target.name}.copy")
    copy.unlink(missing_ok=True)
    try:
        with open(source, "rb") as read, open(copy, "xb") as written:
            shutil.copyfileobj(read, written)
        os.replace(copy, target)
    finally:
        copy.unlink(missing_ok=True)


def _cut_unfinished_line(path: Path) -> None:
    """Remove the line within which a process was killed, if the file exists and ends in one."""
    if path.is_file() and path.stat().st_size:
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            whole = data.rfind(b"\n") + 1
        os.truncate(path, whole)
