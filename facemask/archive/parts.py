"""The output of an archive: parts of many rows, as Parquet or JSON lines, which appear whole, and their counts."""

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
from pyarrow import ArrowException
from pyarrow import parquet as pq

from facemask.archive.sources import KEY, stored_name
from facemask.archive.stores import Store
from facemask.errors import InputError, error_kind
from facemask.io.json_lines import json_line
from facemask.io.records import image_record
from facemask.types import FileResult

SCHEMA_VERSION = 1  # a reader of version 1 reads what later versions write, unless this number changes
FACE = pa.struct(
    [
        pa.field("x1", pa.int32()),
        pa.field("y1", pa.int32()),
        pa.field("x2", pa.int32()),
        pa.field("y2", pa.int32()),
        pa.field("confidence", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("probability", pa.float64()),
        pa.field("unsure", pa.bool_()),
        pa.field("probabilities", pa.map_(pa.string(), pa.float64())),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("error", pa.string()),
        pa.field("modified", pa.timestamp("ms", tz="UTC")),
        pa.field("truncated", pa.bool_()),
        pa.field("faces", pa.list_(FACE)),
    ],
    metadata={"facemask.schema": str(SCHEMA_VERSION)},
)
FOLDER = "faces"  # of the parts, in the output
NAME = re.compile(rf"(?P<key>[0-9a-f]{{{2 * KEY}}})-(?P<number>\d{{5}})(?P<end>-end)?\.(parquet|jsonl)")
SCANNERS = 8  # parts that are read at once when a run is resumed


@dataclass(frozen=True)
class Row:
    """An image that is done: `record` is `image_record`'s, or has `image` and `error`."""

    record: dict
    truncated: bool = False  # there may be more faces
    modified: float | None = None  # s since 1970, when the file was last changed; None if unknown

    @classmethod
    def of_result(cls, name: str, result: FileResult, modified: float | None) -> "Row":
        """Return the row of an image in which faces were detected."""
        return cls(image_record(name, result), result.is_truncated, modified)

    @classmethod
    def of_error(cls, name: str, error: str, modified: float | None) -> "Row":
        """Return the row of an image that could not be used."""
        return cls({"image": name, "error": error}, modified=modified)


@dataclass
class Counts:
    """What rows hold, counted."""

    totals: Counter[str] = field(default_factory=Counter)  # images, failed, without_faces, faces, unsure
    labels: Counter[str] = field(default_factory=Counter)  # faces
    errors: Counter[str] = field(default_factory=Counter)  # images that failed, by kind

    def add(self, record: dict) -> None:
        """Count a row."""
        self.totals["images"] += 1
        if "error" in record:
            self.totals["failed"] += 1
            self.errors[error_kind(record["error"])] += 1
            return
        self.totals["without_faces"] += not record["faces"]
        self.totals["faces"] += len(record["faces"])
        self.totals["unsure"] += sum(face["unsure"] for face in record["faces"])
        self.labels.update(face["label"] for face in record["faces"])

    def update(self, other: "Counts") -> None:
        """Add other counts."""
        self.totals.update(other.totals)
        self.labels.update(other.labels)
        self.errors.update(other.errors)

    def record(self) -> dict:
        """Return them as a dictionary for JSON, always in the same order."""
        names = ("images", "failed", "without_faces", "faces", "unsure")
        by_count = {name: dict(sorted(c.items())) for name, c in (("labels", self.labels), ("errors", self.errors))}
        return {name: self.totals[name] for name in names} | by_count


def parquet_row(row: Row) -> dict:
    """Return a row with the fields of SCHEMA."""
    record = row.record
    error = record.get("error")
    return {
        "image": stored_name(record["image"]),
        "width": record.get("width"),
        "height": record.get("height"),
        "error": None if error is None else stored_name(error),
        "modified": None if row.modified is None else datetime.fromtimestamp(row.modified, UTC),
        "truncated": None if error is not None else row.truncated,
        "faces": None if error is not None else [_face_row(face) for face in record["faces"]],
    }


def _face_row(face: dict) -> dict:
    sides = dict(zip(("x1", "y1", "x2", "y2"), face["box"], strict=True))
    return sides | {name: face[name] for name in ("confidence", "label", "probability", "unsure", "probabilities")}


def parquet_record(row: dict) -> dict:
    """Return a row of SCHEMA, as pyarrow's `to_pylist` gives it, as the record that it was: equal also as JSON text."""
    if row["error"] is not None:
        return {"image": row["image"], "error": row["error"]}
    faces = []
    for face in row["faces"]:
        others = {name: face[name] for name in ("confidence", "label", "probability", "unsure")}
        box = [face[side] for side in ("x1", "y1", "x2", "y2")]
        faces.append({"box": box, **others, "probabilities": dict(face["probabilities"])})
    return {"image": row["image"], "width": row["width"], "height": row["height"], "faces": faces}


def encode_parquet(rows: list[Row]) -> bytes:
    """Return rows as a Parquet file."""
    table = pa.Table.from_pylist([parquet_row(row) for row in rows], schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def decode_parquet(data: bytes) -> Iterator[dict]:
    """Yield the records of a Parquet file of ours. Raises ValueError if it is another's."""
    file = pq.ParquetFile(io.BytesIO(data))
    version = (file.schema_arrow.metadata or {}).get(b"facemask.schema")
    if version != str(SCHEMA_VERSION).encode():
        raise ValueError(f"its schema is of version {version.decode() if version else 'none'}, not {SCHEMA_VERSION}")
    for row in file.read().to_pylist():
        yield parquet_record(row)


def encode_jsonl(rows: list[Row]) -> bytes:
    """Return rows as JSON lines: those of detect_mask_image.py --jsonl, and for an image that failed its error."""
    return b"".join(json_line(row.record) for row in rows)


def decode_jsonl(data: bytes) -> Iterator[dict]:
    """Yield the records of JSON lines."""
    for line in data.splitlines():
        yield json.loads(line)


@dataclass(frozen=True)
class Format:
    """How the rows of a part are written and read."""

    suffix: str
    encode: Callable[[list[Row]], bytes]
    decode: Callable[[bytes], Iterator[dict]]


FORMATS = {
    "parquet": Format(".parquet", encode_parquet, decode_parquet),
    "jsonl": Format(".jsonl", encode_jsonl, decode_jsonl),
}


@dataclass(frozen=True)
class Output:
    """A folder, here or in an object store, with the parts of a run: faces/KEY[:2]/KEY-NUMBER[-end].SUFFIX."""

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

    def part(self, key: str, number: int, is_end: bool) -> tuple[Store, str]:
        """Return store and path of a part of a unit."""
        end = "-end" if is_end else ""
        return self.path(FOLDER, f"part={key[:2]}", f"{key}-{number:05d}{end}{FORMATS[self.format].suffix}")

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

    def read_part(self, store: Store, path: str) -> list[dict]:
        """Return the records of a part. Raises InputError if it is not one."""
        try:
            return list(FORMATS[self.format].decode(store.read(path)))
        except (ArrowException, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{store.name(path)}: not a part that this program wrote ({error}); name another folder") from error


@dataclass
class Earlier:
    """What the output of an earlier run holds."""

    images: set[str] = field(default_factory=set)  # names in records
    finished: set[str] = field(default_factory=set)  # the first KEY characters of the keys of shards
    counts: Counts = field(default_factory=Counts)


def scan(output: Output) -> Earlier:
    """Read all parts of an output. Raises InputError if one cannot be read, or an image is in two."""
    store, root = output.path(FOLDER)
    earlier = Earlier()
    paths = []
    for info in store.find(root):
        name = NAME.fullmatch(info.base_name)
        if name:
            paths.append(info.path)
            if name["end"]:
                earlier.finished.add(name["key"][:KEY])
    with ThreadPoolExecutor(SCANNERS) as pool:
        for records in _bounded_map(pool, lambda path: output.read_part(store, path), paths):
            for record in records:
                earlier.counts.add(record)
                earlier.images.add(stored_name(record["image"]))
    twice = earlier.counts.totals["images"] - len(earlier.images)
    if twice:
        raise InputError(f"{output.name(FOLDER)}: {twice} images have two rows; was another run writing too? name another folder")
    return earlier


def _bounded_map(pool: ThreadPoolExecutor, function: Callable, items: list) -> Iterable:
    """Call a function on items in a pool, few at a time, so that few results are held."""
    for start in range(0, len(items), 4 * SCANNERS):
        yield from pool.map(function, items[start : start + 4 * SCANNERS])
