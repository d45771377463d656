"""The output of an archive: parts of many rows, as Parquet or JSON lines, which appear whole, and their counts."""

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
from pyarrow import ArrowException
from pyarrow import parquet as pq

from facemask.archive.sources import KEY, stored_name
from facemask.archive.stores import Store
from facemask.archive.tables import SCHEMA_VERSION, Row, Table
from facemask.errors import InputError
from facemask.io.json_lines import json_line

NAME = re.compile(rf"(?P<key>[0-9a-f]{{{2 * KEY}}})-(?P<number>\d{{5}})(?P<end>-end)?\.(parquet|jsonl)")
SCANNERS = 8  # parts that are read at once when a run is resumed


@dataclass
class Counts:
    """What rows hold, counted."""

    totals: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)  # of faces, or of people in clips
    errors: Counter[str] = field(default_factory=Counter)  # images or clips that failed, by kind

    def update(self, other: "Counts") -> None:
        """Add other counts."""
        self.totals.update(other.totals)
        self.labels.update(other.labels)
        self.errors.update(other.errors)

    def record(self, totals: Sequence[str]) -> dict:
        """Return them as a dictionary for JSON, always in the same order; `totals` are the names of the totals."""
        by_count = {name: dict(sorted(c.items())) for name, c in (("labels", self.labels), ("errors", self.errors))}
        return {name: self.totals[name] for name in totals} | by_count


def encode_parquet(table: Table, rows: list[Row]) -> bytes:
    """Return rows as a Parquet file."""
    content = pa.Table.from_pylist([table.columns(row) for row in rows], schema=table.schema)
    buffer = io.BytesIO()
    pq.write_table(content, buffer, compression="zstd")
    return buffer.getvalue()


def decode_parquet(table: Table, data: bytes) -> Iterator[dict]:
    """Yield the records of a Parquet file of ours. Raises ValueError if it is another's."""
    file = pq.ParquetFile(io.BytesIO(data))
    version = (file.schema_arrow.metadata or {}).get(b"facemask.schema")
    if version != str(SCHEMA_VERSION).encode():
        raise ValueError(f"its schema is of version {version.decode() if version else 'none'}, not {SCHEMA_VERSION}")
    for columns in file.read().to_pylist():
        yield table.record(columns)


def encode_jsonl(table: Table, rows: list[Row]) -> bytes:
    """Return rows as JSON lines: those of the scripts for images and video; of what failed, its error."""
    return b"".join(json_line(row.record) for row in rows)


def decode_jsonl(table: Table, data: bytes) -> Iterator[dict]:
    """Yield the records of JSON lines."""
    for line in data.splitlines():
        yield json.loads(line)


@dataclass(frozen=True)
class Format:
    """How the rows of a part are written and read."""

    suffix: str
    encode: Callable[[Table, list[Row]], bytes]
    decode: Callable[[Table, bytes], Iterator[dict]]


FORMATS = {
    "parquet": Format(".parquet", encode_parquet, decode_parquet),
    "jsonl": Format(".jsonl", encode_jsonl, decode_jsonl),
}


@dataclass(frozen=True)
class Output:
    """A folder, here or in an object store, with the parts of a run: TABLE/part=KEY[:2]/KEY-NUMBER[-end].SUFFIX."""

    uri: str
    format: str  # of FORMATS

    def name(self, *names: str) -> str:
        """Return the name of a file in it, for messages."""
        store, root = Store.of(self.uri)
        return store.name("/".join([root, *names]))

    def path(self, *names: str) -> tuple[Store, str]:
        """Return the store, and the path in it of a file of this folder."""
        store, root = Store.of(self.uri)
        return store, "/".join([root, *names])

    def part(self, table: Table, key: str, number: int, is_end: bool) -> tuple[Store, str]:
        """Return store and path of a part of a unit."""
        end = "-end" if is_end else ""
        return self.path(table.folder, f"part={key[:2]}", f"{key}-{number:05d}{end}{FORMATS[self.format].suffix}")

    def parts(self, table: Table) -> tuple[Store, list[str]]:
        """Return the store, and the paths of all parts of a table."""
        store, root = self.path(table.folder)
        return store, [info.path for info in store.find(root) if NAME.fullmatch(info.base_name)]

    def write_part(self, table: Table, key: str, number: int, is_end: bool, rows: list[Row]) -> None:
        """Write a part, whole. Raises OutputError if it cannot be written."""
        store, path = self.part(table, key, number, is_end)
        store.write(path, FORMATS[self.format].encode(table, rows))

    def read_part(self, table: Table, store: Store, path: str) -> list[dict]:
        """Return the records of a part. Raises InputError if it is not one."""
        try:
            return list(FORMATS[self.format].decode(table, store.read(path)))
        except (ArrowException, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{store.name(path)}: not a part that this program wrote ({error}); name another folder") from error

    def records(self, table: Table) -> Iterator[dict]:
        """Yield the records of all parts of a table, several parts read at once. Raises InputError as `read_part`."""
        store, paths = self.parts(table)
        with ThreadPoolExecutor(SCANNERS) as pool:
            for records in _bounded_map(pool, lambda path: self.read_part(table, store, path), paths):
                yield from records

    def write_json(self, name: str, record: dict) -> None:
        """Write a JSON file, whole. Raises OutputError if it cannot be written."""
        store, path = self.path(name)
        store.write(path, json.dumps(record, indent=2).encode() + b"\n")

    def read_json(self, name: str) -> dict | None:
        """Return the content of a JSON file; None if it is not there. Raises InputError if it cannot be read."""
        store, path = self.path(name)
        if not store.exists(path):
            return None
        try:
            return json.loads(store.read(path))
        except ValueError as error:
            raise InputError(f"{store.name(path)}: is not JSON ({error}); name another folder") from error


@dataclass
class Earlier:
    """What the output of an earlier run holds."""

    names: set[str] = field(default_factory=set)  # of images or clips, as in records
    finished: set[str] = field(default_factory=set)  # the first KEY characters of the keys of shards
    counts: Counts = field(default_factory=Counts)


def scan(output: Output, table: Table, count: Callable[[Counts, dict], None]) -> Earlier:
    """Read all parts of a table. Raises InputError if one cannot be read, or an image or a clip is in two."""
    earlier, rows = Earlier(), 0
    for path in output.parts(table)[1]:
        name = NAME.fullmatch(path.rpartition("/")[2])
        if name and name["end"]:
            earlier.finished.add(name["key"][:KEY])
    for record in output.records(table):
        count(earlier.counts, record)
        earlier.names.add(stored_name(record[table.name]))
        rows += 1
    if twice := rows - len(earlier.names):
        raise InputError(
            f"{output.name(table.folder)}: {twice} names have two rows; was another run writing too? name another folder"
        )
    return earlier


def _bounded_map(pool: ThreadPoolExecutor, function: Callable, items: list) -> Iterable:
    """Call a function on items in a pool, few at a time, so that few results are held."""
    for start in range(0, len(items), 4 * SCANNERS):
        yield from pool.map(function, items[start : start + 4 * SCANNERS])
