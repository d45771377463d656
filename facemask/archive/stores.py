"""Files of this machine and of object stores, by one interface: pyarrow's file systems, fsspec's for what it lacks."""

import errno
import fnmatch
import logging
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, wraps
from typing import IO, ParamSpec, TypeVar

from pyarrow import ArrowException, fs

from facemask.errors import InputError, OutputError
from facemask.io.downloads import SCHEME, without_password
from facemask.io.outputs import FREE_SPACE

GLOB = re.compile(r"[*?\[]")
PYARROW_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "file")  # what pyarrow refuses of these, fsspec is not asked for
REMEDY = "check the name and the credentials"
# What pyarrow says if the server, not the object, is at fault, after three attempts of its own.
BUSY = re.compile(
    r"HTTP status (408|429|5\d\d)|NETWORK_CONNECTION|SLOW_DOWN|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|THROTTLING|REQUEST_TIMEOUT"
    r"|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED"
)
AWS_ERROR = re.compile(r"AWS Error \w+( \(HTTP status \d+\))?")
SILENCE = 30.0  # s that a server may send nothing: listing many objects takes longer than pyarrow's 3 s
PATIENCE = 300.0  # s that a store is asked again
MAX_PAUSE = 20.0  # s between two attempts
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

logger = logging.getLogger("facemask")


class StoreError(InputError):
    """An object store does not answer, or says that it cannot now: the same may succeed later."""


def patient(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Call a function again, with pauses, while it raises StoreError: for PATIENCE seconds at most."""

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        pauses = Pauses()
        while True:
            try:
                return function(*args, **kwargs)
            except StoreError as error:
                pauses.wait(error)

    return call


class Pauses:
    """Pauses between attempts, from a second to MAX_PAUSE; no two processes keep the same rhythm."""

    def __init__(self) -> None:
        self._end, self._pause = time.monotonic() + PATIENCE, 1.0

    def wait(self, error: StoreError) -> None:
        """Wait before the next attempt. Raises the error if PATIENCE is at its end."""
        if time.monotonic() >= self._end:
            raise error
        if self._pause == 1:
            logger.warning("%s; trying again for %.0f s", str(error).partition("; ")[0], PATIENCE)
        time.sleep(self._pause * random.uniform(0.5, 1))
        self._pause = min(2 * self._pause, MAX_PAUSE)


def is_remote(source: str) -> bool:
    """Return whether a source is the URI of an object store. Raises InputError if it is a web address."""
    if source.lower().startswith(("http://", "https://")):
        raise InputError(
            f"{without_password(source)}: web addresses are not read here; use s3://, gs:// or az://, or download it"
        )
    return SCHEME.match(source) is not None


@dataclass(frozen=True)
class Store:
    """A file system, and how its paths are named outside of it."""

    files: fs.FileSystem
    address: str = ""  # of its root as a URI, as "s3://bucket"; empty for this machine
    root: str = ""  # its path
    options: str = ""  # what follows a question mark in its URIs, with that

    @classmethod
    def of(cls, source: str) -> tuple["Store", str]:
        """Return the store of a path or URI, and the path in it. Raises InputError if this URI has no store."""
        if not is_remote(source):
            return cls(fs.LocalFileSystem()), os.path.expanduser(source)
        text, mark, query = source.partition("?")
        if "=" not in query:  # a question mark of a pattern
            text, mark, query = source, "", ""
        scheme, _, rest = text.partition("://")
        authority, slash, path = rest.partition("/")
        if re.search(r"[*?]", authority.rpartition("@")[2]):
            raise InputError(f"{without_password(source)}: a pattern for buckets; name one bucket, as {scheme}://bucket/*.jpg")
        store = _open_store(f"{scheme}://{authority}", mark + query)
        return store, f"{store.root}{slash}{path}".rstrip("/")

    def name(self, path: str) -> str:
        """Return a path of this store as records and messages name it: without credentials and options."""
        return without_password(self.address) + path.removeprefix(self.root)

    def uri(self, path: str) -> str:
        """Return a path of this store as `of` takes it."""
        return f"{self.address}{path.removeprefix(self.root)}{self.options}"

    @patient
    def find(self, path: str) -> list[fs.FileInfo]:
        """Return the files below a folder, sorted by path; a file is itself; none if nothing is there."""
        with self._reading(path):
            info = self.files.get_file_info(path)
            if info.type == fs.FileType.File:
                return [info]
            found = self.files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        return sorted((info for info in found if info.type == fs.FileType.File), key=lambda info: info.path)

    def match(self, pattern: str) -> Sequence[fs.FileInfo]:
        """Return the files that match a glob, sorted; `*` matches slashes too."""
        folder = pattern[: pattern.rindex("/", 0, GLOB.search(pattern).start())]  # type: ignore[union-attr]
        return [info for info in self.find(folder) if fnmatch.fnmatchcase(info.path, pattern)]

    @patient
    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises InputError if it cannot be read."""
        with self._reading(path), self.files.open_input_stream(path, compression=None) as stream:
            return stream.read()

    @patient
    def read_dated(self, path: str) -> tuple[bytes, float | None]:
        """Return the content of a file, and when it was changed, s since 1970; None if unknown. Raises as `read`."""
        with self._reading(path):
            with self.files.open_input_stream(path, compression=None) as stream:
                changed = (stream.metadata() or {}).get("Last-Modified")
                data = stream.read()
            if changed:  # of S3: without another request
                return data, datetime.fromisoformat(changed.decode()).timestamp()
        return data, self.modified(path)

    @patient
    def modified(self, path: str) -> float | None:
        """Return when a file was changed, s since 1970; None if unknown. Raises InputError if the store cannot be read."""
        with self._reading(path):
            mtime = self.files.get_file_info(path).mtime
        return mtime.timestamp() if mtime else None

    def answers(self) -> bool:
        """Return whether the store answers at all, even if an object cannot be read."""
        try:
            with self._reading(self.root):
                self.files.get_file_info(self.root)
        except StoreError:
            return False
        except InputError:
            pass
        return True

    @patient
    def exists(self, path: str) -> bool:
        """Return whether there is a file of that name."""
        with self._reading(path):
            return self.files.get_file_info(path).type == fs.FileType.File

    @contextmanager
    def open(self, path: str, seekable: bool = False) -> Iterator[IO[bytes]]:
        """Yield a file to read; `seekable` if it is not read from its beginning on."""
        with self._reading(path):
            file = self.files.open_input_file(path) if seekable else self.files.open_input_stream(path, compression=None)
        with file:
            yield file

    @patient
    def write(self, path: str, data: bytes) -> None:
        """Write a file, which appears whole. Raises OutputError if it cannot be written.

        Object stores show an object when it is complete; here it has another name until then.
        """
        is_local = isinstance(self.files, fs.LocalFileSystem)
        place = f"{path}.{uuid.uuid4().hex}.partial" if is_local else path
        try:
            if is_local:
                os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
                with open(place, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())  # a node that fails loses no part that was counted
                os.replace(place, path)
                return
            with self.files.open_output_stream(path) as stream:
                stream.write(data)
        except (OSError, ArrowException) as error:
            self.check(path, error)
            raise OutputError(f"{self.name(path)}: cannot be written ({reason(error)}); {FREE_SPACE}") from error
        finally:
            if is_local:
                with suppress(OSError):
                    os.unlink(place)  # after an error or Ctrl-C; else it has its name

    @patient
    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._reading(path):
            if self.files.get_file_info(path).type == fs.FileType.File:
                self.files.delete_file(path)

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ArrowException, ValueError) as error:
            self.check(path, error)
            raise InputError(f"{self.name(path)}: cannot be read ({reason(error)}); {REMEDY}") from error

    def check(self, path: str, error: Exception) -> None:
        """Raise StoreError if an error is the store's fault."""
        if self.address and BUSY.search(str(error)):
            message = f"the object store does not answer ({reason(error)}); check it and the network, and continue with --resume"
            raise StoreError(f"{self.name(path)}: {message}") from error


def reason(error: Exception) -> str:
    """Return the first line of what an error says, without names, so that equal errors are counted as one kind."""
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    text = str(getattr(error, "strerror", None) or error).partition("\n")[0]
    code = AWS_ERROR.search(text)
    return code[0] if code else text


@lru_cache(256)
def _open_store(address: str, options: str) -> Store:
    """Open a bucket or the like, once in this process. Raises InputError if neither pyarrow nor fsspec can."""
    try:
        files, root = fs.FileSystem.from_uri(f"{address}/{options}")
        if isinstance(files, fs.S3FileSystem):
            _, (settings,) = files.__reduce__()  # by which it travels to other processes; a URI has no place for a time limit
            files = fs.S3FileSystem(**settings | {"request_timeout": SILENCE})
        return Store(files, address, root.rstrip("/"), options)
    except (ArrowException, ValueError, OSError) as error:
        why = reason(error)
        if address.partition("://")[0].lower() in PYARROW_SCHEMES:
            message = f"{without_password(address)}: cannot be opened ({why}); check the address and its options"
            raise InputError(message) from error
    import fsspec

    try:
        other, root = fsspec.core.url_to_fs(f"{address}/")
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"{without_password(address)}: cannot be opened ({reason(error) or why}); check the address") from error
    return Store(fs.PyFileSystem(fs.FSSpecHandler(other)), address, root.rstrip("/"), options)
