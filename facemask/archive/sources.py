"""Where the images or clips of an archive are: files, lists of files, tar shards, Parquet; cut into units of work."""

import glob
import hashlib
import os
import random
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import accumulate, islice
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa
from pyarrow import ArrowException
from pyarrow import parquet as pq

from facemask.archive.stores import GLOB, Pauses, Store, StoreError, is_remote, patient
from facemask.errors import InputError
from facemask.io.find_images import READ_KINDS, READ_SUFFIXES, find_images, match_files, walk_files
from facemask.io.images import MAX_FILE
from facemask.io.kinds import VIDEO_SUFFIXES, Kind
from facemask.parallel import prefetch_map

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PARQUET_SUFFIXES = (".parquet", ".pq")
LIST_SUFFIXES = (".txt", ".lst")
CLIP_SUFFIXES = tuple(suffix for suffix in VIDEO_SUFFIXES if suffix not in READ_SUFFIXES)
SHARD_SUFFIXES = TAR_SUFFIXES + PARQUET_SUFFIXES
IN_TAR = re.compile(r"\.(tar|tar\.gz|tgz)/", re.IGNORECASE)  # in the name of an image of a tar shard, where its own begins
READERS = 8  # files of an object store that are read at once: hides its latency
PATH_COLUMNS = ("image", "path", "image_path", "file", "file_name", "url", "uri")  # of paths in Parquet, by preference
KEY = 16  # characters of a key: 64 bits
Result = TypeVar("Result")


@dataclass(frozen=True)
class Item:
    """An image or clip: a file at `path`, an image's content, `data`, or why it could not be read, `error`.

    `path` is of this machine; that of a clip may be a URI.
    """

    name: str
    path: str | None = None
    data: bytes | None = None
    error: str | None = None
    modified: float | None = None  # s since 1970; None if unknown

    @property
    def time(self) -> datetime | None:
        """Return when it was last changed; None if unknown, or not a time, as archives may hold."""
        try:
            return None if self.modified is None else datetime.fromtimestamp(self.modified, UTC)
        except (ValueError, OverflowError, OSError):
            return None


class Unit(Protocol):
    """A unit of work: images that one actor reads one after the other, or a clip."""

    @property
    def count(self) -> int | None:
        """Return the number of images or clips; None if it is not known before it is read."""

    @property
    def key(self) -> str:
        """Return a text that names it and no other unit, 2 * KEY characters; units of one shard begin with the same KEY."""

    @property
    def is_whole(self) -> bool:
        """Return whether its shard is done when it is."""

    def read(self) -> Iterator[Item]:
        """Yield its images, or its clip, always in the same order."""


class Shard(Unit, Protocol):
    """What holds images, or is a clip, and has its own parts in the output, the last of which says that it is done."""

    @property
    def uri(self) -> str:
        """Return where it is: a path, or a URI."""

    def names(self) -> list[str]:
        """Return the names in records of what it holds. Raises InputError if it cannot be read."""

    def only(self, names: Collection[str]) -> "Shard":
        """Return it with those of its names alone."""

    def without(self, done: Collection[str]) -> "Shard":
        """Return it without those of its names that an earlier run took."""


def digest(*parts: str) -> str:
    """Return KEY hexadecimal characters for texts."""
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:KEY]


@dataclass(frozen=True)
class Files:
    """Image files, by path or URI."""

    images: tuple[str, ...]
    is_whole = False

    @property
    def count(self) -> int:
        return len(self.images)

    @property
    def key(self) -> str:
        return digest("files", *self.images) + digest("more", *self.images)

    def read(self) -> Iterator[Item]:
        for _, item in prefetch_map(_read_file, self.images, READERS):
            yield item.result()


def _read_file(image: str) -> Item:
    """Return an image file; of this machine, only where it is: the detector reads it."""
    if not is_remote(image):
        try:
            return Item(image, image, modified=os.stat(image).st_mtime)
        except (OSError, ValueError):
            return Item(image, image)
    name = image
    try:
        store, path = Store.of(image)
        name = store.name(path)
        data, modified = store.read_dated(path)
        return Item(name, data=data, modified=modified)
    except InputError as error:
        if isinstance(error, StoreError) and not store.answers():
            raise
        return Item(name, error=str(error))


def _reopened(read: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """Yield what `read` yields; if a store stops to answer, read again from the beginning, and leave out what was yielded."""
    taken, pauses = 0, Pauses()
    while True:
        try:
            for item in islice(read(), taken, None):
                taken, pauses = taken + 1, Pauses()
                yield item
            return
        except StoreError as error:
            pauses.wait(error)


@dataclass(frozen=True)
class TarShard:
    """The images of a tar file, as WebDataset writes: other members, as labels, are passed over."""

    uri: str
    members: frozenset[str] | None = None  # names to take; None: all
    done: frozenset[str] = frozenset()  # names that an earlier run took
    count: int | None = None

    @property
    def key(self) -> str:
        return digest("shard", record_name(self.uri)) + digest(*sorted(self.members or ()), "done", *sorted(self.done))

    @property
    def is_whole(self) -> bool:
        return self.members is None

    def read(self) -> Iterator[Item]:
        return _reopened(self._read)

    def _read(self) -> Iterator[Item]:
        store, path = Store.of(self.uri)
        name = store.name(path)
        found = False
        try:
            with store.open(path) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
                for image, member in _image_members(tar, name):
                    found = True
                    if stored_name(image) in self.done or (self.members is not None and image not in self.members):
                        continue
                    if not member.isfile():
                        yield Item(image, error=f"{image}: is a link in the tar file; pack it with --hard-dereference or -h")
                        continue
                    if member.size > MAX_FILE:
                        yield Item(image, error=f"{image}: {member.size / 1e9:.1f} GB are too many for an image; make it smaller")
                        continue
                    data = tar.extractfile(member).read()  # type: ignore[union-attr]
                    yield Item(image, data=data, modified=member.mtime)
        except StoreError:
            raise
        except InputError as error:
            yield Item(name, error=str(error))
        except (tarfile.TarError, OSError, EOFError, ArrowException) as error:
            store.check(path, error)
            yield Item(name, error=f"{name}: not a whole tar file ({error}); copy it again")
        else:
            if not found:
                yield Item(name, error=f"{name}: no images in this tar file; known are {READ_KINDS}")

    @patient
    def names(self) -> list[str]:
        """Return the images in it. Raises InputError if it cannot be read."""
        store, path = Store.of(self.uri)
        try:
            with store.open(path) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
                return [image for image, _ in _image_members(tar, store.name(path))]
        except (tarfile.TarError, OSError, EOFError, ArrowException) as error:
            store.check(path, error)
            raise InputError(f"{store.name(path)}: not a whole tar file ({error}); copy it again") from error

    def only(self, names: Collection[str]) -> "TarShard":
        return replace(self, members=frozenset(names), count=len(names))

    def without(self, done: Collection[str]) -> "TarShard":
        if self.members is None:
            return replace(self, done=frozenset(done))
        earlier = self.members & frozenset(done)
        return replace(self, done=earlier, count=len(self.members) - len(earlier))


def _image_members(tar: tarfile.TarFile, name: str) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield the images of the tar file `name`, links too, each with its name in records: of equal ones, the second ends in #2."""
    counts: Counter[str] = Counter()
    for member in tar:
        if is_image_member(member.name) and (member.isfile() or member.islnk() or member.issym()):
            image = f"{name}/{member.name}"
            counts[stored_name(image)] += 1
            number = counts[stored_name(image)]
            yield (image if number == 1 else f"{image}#{number}"), member


def is_image_member(name: str) -> bool:
    """Return whether a member of a tar file is an image, by its name; macOS adds "._" files that are not."""
    base = name.rpartition("/")[2].lower()
    return base.endswith(READ_SUFFIXES) and not base.startswith(".")


@dataclass(frozen=True)
class ParquetRows:
    """The images in a row group of a Parquet file that holds their content."""

    uri: str
    group: int  # of the file, from 0
    first: int  # number of its first row in the file
    column: str  # binary, or a struct with `bytes`, as Hugging Face writes
    count: int
    rows: frozenset[int] | None = None  # numbers in the file; None: all
    done: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        rows = map(str, sorted(self.rows or ()))
        return digest("shard", record_name(self.uri), str(self.group)) + digest(*rows, "done", *sorted(self.done))

    @property
    def is_whole(self) -> bool:
        return self.rows is None

    def read(self) -> Iterator[Item]:
        return _reopened(self._read)

    def _read(self) -> Iterator[Item]:
        store, path = Store.of(self.uri)
        name = store.name(path)
        wanted = self._numbers_left()
        number = self.first
        try:
            with store.open(path, seekable=True) as stream:
                file = pq.ParquetFile(stream)
                for batch in file.iter_batches(READERS, row_groups=[self.group], columns=[self.column]):
                    for value in batch.column(0):
                        image = f"{name}#{number}"
                        if number in wanted:
                            data = value.as_py()
                            data = data.get("bytes") if isinstance(data, dict) else data
                            error = None if data else f"{image}: holds no image; remove this row"
                            yield Item(image, data=data, error=error)
                        number += 1
        except StoreError:
            raise
        except (InputError, ArrowException, OSError) as error:
            store.check(path, error)
            message = (
                str(error) if isinstance(error, InputError) else f"{name}: not a whole Parquet file ({error}); copy it again"
            )
            yield from (Item(f"{name}#{each}", error=message) for each in sorted(wanted) if each >= number)

    def _numbers_left(self) -> set[int]:
        """Return the numbers of the rows that are to be taken."""
        numbers = self.rows or range(self.first, self.first + self.count + len(self.done))  # `count` is without `done`
        return set(numbers) - set(map(_row_number, self.done))

    def names(self) -> list[str]:
        store, path = Store.of(self.uri)
        return [f"{store.name(path)}#{number}" for number in range(self.first, self.first + self.count)]

    def only(self, names: Collection[str]) -> "ParquetRows":
        return replace(self, rows=frozenset(map(_row_number, names)), count=len(names))

    def without(self, done: Collection[str]) -> "ParquetRows":
        numbers = self.rows or range(self.first, self.first + self.count)
        earlier = frozenset(name for name in done if _row_number(name) in numbers)
        return replace(self, done=earlier, count=len(numbers) - len(earlier))


def _row_number(name: str) -> int:
    """Return the number of a row from its name in records."""
    return int(name.rpartition("#")[2])


@dataclass(frozen=True)
class Clip:
    """A video file, by path or URI."""

    uri: str
    count = 1
    is_whole = True

    @property
    def key(self) -> str:
        name = record_name(self.uri)
        return digest("clip", name) + digest("more", name)

    def read(self) -> Iterator[Item]:
        name = record_name(self.uri)
        store, path = Store.of(self.uri)
        try:
            modified = store.modified(path)
        except StoreError:
            raise
        except InputError as error:
            yield Item(name, error=str(error))
            return
        yield Item(name if store.address else self.uri, self.uri, modified=modified)

    def names(self) -> list[str]:
        return [record_name(self.uri)]

    def only(self, names: Collection[str]) -> "Clip":
        return self

    def without(self, done: Collection[str]) -> "Clip":
        return self


@dataclass
class Found:
    """What sources name: image files, and shards that hold images; or clips."""

    images: list[str] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)

    @property
    def are_clips(self) -> bool:
        """Return whether it is clips: never both, `find_sources` raises an error."""
        return any(isinstance(shard, Clip) for shard in self.shards)

    @property
    def count(self) -> int | None:
        """Return the number of images or clips; None if it is not known before tar files are read."""
        counts = [shard.count for shard in self.shards]
        return None if None in counts else len(self.images) + sum(count or 0 for count in counts)


def find_sources(sources: Iterable[str], skipped: Counter[Kind], column: str | None = None) -> Found:
    """Find what files, folders, globs, lists (.txt), tar shards and Parquet files name, here or in an object store.

    `column` is the column of Parquet files that holds images, their content or paths; None: the one that can. `skipped`
    counts files in folders that are not read. Raises InputError if a source names nothing, or they name images and videos.
    """
    found = Found()
    for source in sources:
        find = _find_remote if is_remote(source) else _find_local
        for path in find(source, skipped):
            _add(found, path, column)
    found.images = _unique(found.images, record_name)
    found.shards = _unique(found.shards, lambda shard: shard.key)
    clips = [shard for shard in found.shards if isinstance(shard, Clip)]
    if clips and (found.images or len(clips) < len(found.shards)):
        raise InputError(
            f"{record_name(clips[0].uri)}: a video among images; their results have other columns: give one kind, and the other "
            "to another run, with another output"
        )
    return found


def _unique(items: Iterable[Result], key: Callable[[Result], str]) -> list[Result]:
    """Return the first item of each key."""
    first: dict[str, Result] = {}
    for item in items:
        first.setdefault(key(item), item)
    return list(first.values())


def _add(found: Found, path: str, column: str | None, is_listed: bool = False) -> None:
    """Add a file or object: what its suffix says, else an image. A list in a list is an image."""
    if is_listed and not is_remote(path):
        path = os.path.expanduser(path)
    lower = Store.of(path)[1].lower() if is_remote(path) else path.lower()
    if lower.endswith(CLIP_SUFFIXES):
        found.shards.append(Clip(path))
    elif lower.endswith(TAR_SUFFIXES):
        found.shards.append(TarShard(path))
    elif lower.endswith(PARQUET_SUFFIXES):
        _add_parquet(found, path, column, is_listed)
    elif lower.endswith(LIST_SUFFIXES) and not is_listed:
        for listed in _read_list(path):
            _add(found, listed, column, is_listed=True)
    else:
        found.images.append(path)


def _find_local(source: str, skipped: Counter[Kind]) -> list[str]:
    """Return the images, shards and lists of a path or glob; a list is read only if it is named itself.

    Of a folder with videos alone they are returned; else they are counted as skipped.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        shards = [str(shard) for shard in walk_files(path, SHARD_SUFFIXES)]
        try:
            images = [str(image) for image in find_images([source], skipped)]
        except InputError:
            shards = shards or [str(clip) for clip in walk_files(path, CLIP_SUFFIXES)]
            if not shards:
                raise
            images = []
        return images + shards
    if not path.exists() and glob.has_magic(source):
        matches = [str(match) for match in match_files(path)]
        shards = [match for match in matches if match.lower().endswith(SHARD_SUFFIXES + LIST_SUFFIXES)]
        others = [match for match in matches if match not in set(shards)]
        return (others if others or shards else [str(image) for image in find_images([source], skipped)]) + shards
    return [str(image) for image in find_images([source], skipped)]


def _find_remote(source: str, skipped: Counter[Kind]) -> list[str]:
    store, path = Store.of(source)
    if GLOB.search(path):
        infos = store.match(path)
        if not infos:
            raise InputError(f"{store.name(path)}: no object matches; check the pattern")
        return [store.uri(info.path) for info in infos]
    infos = store.find(path)
    if not infos:
        raise InputError(f"{store.name(path)}: no such object, and nothing below it; check the name")
    if [info.path for info in infos] == [path]:
        return [source]
    known = [info.path for info in infos if info.path.lower().endswith(READ_SUFFIXES + SHARD_SUFFIXES)]
    known = known or [info.path for info in infos if info.path.lower().endswith(CLIP_SUFFIXES)]
    others = len(infos) - len(known)
    if others:
        skipped[OTHER] += others
    if not known:
        raise InputError(f"{store.name(path)}: no images or videos below it ({others} other objects); known are {READ_KINDS}")
    return [store.uri(name) for name in known]


OTHER = Kind("other objects")


def _read_list(path: str) -> list[str]:
    """Return the paths and URIs of a text file, one per line; empty lines and those that begin with # are passed over."""
    store, place = Store.of(path)
    text = store.read(place).decode("utf-8", "surrogateescape")
    lines = [line.strip("\r") for line in text.split("\n")]
    names = [line for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise InputError(f"{store.name(place)}: lists no images; write one path per line")
    for name in names:
        is_remote(name)  # raises for a web address
    return names


def _add_parquet(found: Found, uri: str, column: str | None, is_listed: bool = False) -> None:
    """Add the images of a Parquet file: its row groups, or the paths that it holds. One of paths in a list is an image."""
    for content in _read_parquet(uri, column):
        if isinstance(content, str) and is_listed:
            found.images.append(uri)
        elif isinstance(content, str):
            _add(found, content, column, is_listed=True)
        else:
            found.shards.append(content)


@patient
def _read_parquet(uri: str, column: str | None) -> list["str | ParquetRows"]:
    """Return the paths in a Parquet file, or its row groups with content. Raises InputError if it has neither."""
    store, path = Store.of(uri)
    name = store.name(path)
    try:
        with store.open(path, seekable=True) as stream:
            file = pq.ParquetFile(stream)
            chosen = column or _image_column(file.schema_arrow)
            if chosen is None or chosen not in file.schema_arrow.names:
                columns = ", ".join(file.schema_arrow.names)
                raise InputError(f"{name}: no column {column or 'of images'} (it has {columns}); name one with --column")
            kind = file.schema_arrow.field(chosen).type
            if not (_is_text(kind) or _is_content(kind)):
                raise InputError(f"{name}: column {chosen} is {kind}; name one of images or paths with --column")
            if _is_text(kind):
                return list(filter(None, file.read(columns=[chosen]).column(0).to_pylist()))
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    except (ArrowException, OSError) as error:
        store.check(path, error)
        raise InputError(f"{name}: not a whole Parquet file ({error}); copy it again") from error
    firsts = accumulate(counts, initial=0)
    rows = zip(firsts, counts, strict=False)  # firsts end with the number of all rows
    return [ParquetRows(uri, group, first, chosen, count) for group, (first, count) in enumerate(rows)]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_content(kind: pa.DataType) -> bool:
    """Return whether a column holds images: binary, or a struct with `bytes`."""
    if pa.types.is_struct(kind) and (index := kind.get_field_index("bytes")) >= 0:
        kind = kind.field(index).type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _image_column(schema: pa.Schema) -> str | None:
    """Return the column that holds images: the first with content, else one of paths."""
    for column in schema:
        if _is_content(column.type):
            return column.name
    texts = [column.name for column in schema if _is_text(column.type)]
    return next((name for name in PATH_COLUMNS if name in texts), None)


def choose(found: Found, limit: int | None, sample: int | None, seed: int = 0) -> Found:
    """Return the first `limit` images or clips, or `sample` drawn at random, always the same ones.

    Tar files are read for that.

    Raises InputError if one of them cannot be read.
    """
    wanted = limit if sample is None else sample
    if wanted is None:
        return found
    members: list[tuple[Shard | None, str]] = [(None, image) for image in found.images]
    for shard in found.shards:
        if sample is None and len(members) >= wanted:
            break
        members += [(shard, name) for name in shard.names()]
    if sample is not None and sample < len(members):
        members = [members[number] for number in sorted(random.Random(seed).sample(range(len(members)), sample))]
    members = members[:wanted]
    chosen = Found([name for shard, name in members if shard is None])
    by_shard: dict[Shard, list[str]] = {}
    for shard, name in members:
        if shard is not None:
            by_shard.setdefault(shard, []).append(name)
    chosen.shards = [shard.only(names) for shard, names in by_shard.items()]
    return chosen


def cut_units(found: Found, size: int, done: Collection[str], finished: Collection[str]) -> list[Unit]:
    """Return what is to do as units of work, files in units of `size`.

    `done` are the names of images that an earlier run took, `finished` the first KEY characters of the keys of shards that
    it finished.
    """
    rest = [image for image in found.images if not done or record_name(image) not in done]
    units: list[Unit] = [Files(tuple(rest[start : start + size])) for start in range(0, len(rest), size)]
    by_shard = _by_shard(done) if done else {}
    for shard in found.shards:
        name = record_name(shard.uri)
        if shard.key[:KEY] in finished or (isinstance(shard, Clip) and name in done):
            continue
        unit = shard.without(by_shard.get(name, ()))
        if unit.count != 0:
            units.append(unit)
    return units


def record_name(image: str) -> str:
    """Return the name in records of an image file: URIs without credentials and options."""
    if not is_remote(image):
        return stored_name(image)
    store, path = Store.of(image)
    return stored_name(store.name(path))


def stored_name(name: str) -> str:
    """Return a name as Parquet holds it: bytes of a file name that are not UTF-8 are escaped, as in JSON."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def find_names(names: Iterable[str], column: str | None = None) -> Found:
    """Return images by their names in records; `column` is as for `find_sources`.

    Raises InputError if a Parquet file cannot be read. Options of URIs are not in names: the environment must have them.
    """
    names = list(names)
    found = Found()
    by_shard = _by_shard(name for name in names if is_remote(name) or not os.path.exists(name))
    in_shards = {name for several in by_shard.values() for name in several}
    found.images = [name for name in names if name not in in_shards]
    for uri, several in by_shard.items():
        if uri.lower().endswith(TAR_SUFFIXES):
            found.shards.append(TarShard(uri).only(several))
            continue
        groups = Found()
        _add_parquet(groups, uri, column)
        for group in groups.shards:
            if wanted := set(group.names()) & set(several):
                found.shards.append(group.only(wanted))
    return found


def _by_shard(done: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of images in shards by the name of the shard."""
    shards: dict[str, list[str]] = {}
    for name in done:
        shard, mark, _ = name.rpartition("#")
        if mark and shard.lower().endswith(PARQUET_SUFFIXES):
            shards.setdefault(shard, []).append(name)
            continue
        if match := IN_TAR.search(name):
            shards.setdefault(name[: match.end() - 1], []).append(name)
    return shards
