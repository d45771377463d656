"""The tables of an output: what their rows hold, as JSON lines and as Parquet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from facemask.archive.sources import stored_name

SCHEMA_VERSION = 1  # a reader of version 1 reads what later versions write, unless this number changes
SIDES = ("x1", "y1", "x2", "y2")
BOX = pa.struct([pa.field(side, pa.int32()) for side in SIDES])
TIME = pa.timestamp("ms", tz="UTC")


@dataclass(frozen=True)
class Row:
    """A row of a table. `record` is its JSON line; `columns` are those that Parquet has beside it."""

    record: dict
    columns: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table: `folder` has its parts, in the output. `name` is the field of records that is `path` in Parquet."""

    folder: str
    name: str
    schema: pa.Schema
    to_columns: Callable[[dict], dict]  # a record without its name
    to_record: Callable[[dict], dict]  # the reverse

    def columns(self, row: Row) -> dict:
        """Return a row with the fields of the schema."""
        rest = {key: value for key, value in row.record.items() if key != self.name}
        if (error := rest.get("error")) is not None:
            rest["error"] = stored_name(error)
        columns = dict.fromkeys(self.schema.names) | {"path": stored_name(row.record[self.name])}
        return columns | self.to_columns(rest) | row.columns

    def record(self, columns: dict) -> dict:
        """Return a row of Parquet, as pyarrow's `to_pylist` gives it, as the record that it was: equal also as JSON."""
        if columns.get("error") is not None:
            return {self.name: columns["path"], "error": columns["error"]}
        return {self.name: columns["path"]} | self.to_record({key: columns[key] for key in self.schema.names})


def make_schema(*fields: pa.Field) -> pa.Schema:
    """Return a schema with `path` before `fields`, and its version."""
    metadata = {"facemask.schema": str(SCHEMA_VERSION)}
    return pa.schema([pa.field("path", pa.string(), nullable=False), *fields], metadata=metadata)


FACE = pa.struct(
    [
        *BOX,
        pa.field("confidence", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("probability", pa.float64()),
        pa.field("unsure", pa.bool_()),
        pa.field("probabilities", pa.map_(pa.string(), pa.float64())),
    ]
)


def _image_columns(record: dict) -> dict:
    if "faces" not in record:
        return record
    faces = [{side: value for side, value in zip(SIDES, face["box"], strict=True)} | face for face in record["faces"]]
    return record | {"faces": [{key: face[key] for key in FACE.names} for face in faces]}


def _image_record(columns: dict) -> dict:
    faces = []
    for face in columns["faces"]:
        others = {name: face[name] for name in ("confidence", "label", "probability", "unsure")}
        faces.append({"box": [face[side] for side in SIDES], **others, "probabilities": dict(face["probabilities"])})
    return {"width": columns["width"], "height": columns["height"], "faces": faces}


FACES = Table(
    "faces",
    "image",
    make_schema(
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("error", pa.string()),
        pa.field("modified", TIME),
        pa.field("truncated", pa.bool_()),
        pa.field("faces", pa.list_(FACE)),
    ),
    _image_columns,
    _image_record,
)


def _plain_columns(schema: pa.Schema, record: dict) -> dict:
    return {
        key: dict(zip(SIDES, value, strict=True)) if schema.field(key).type == BOX else value for key, value in record.items()
    }


def _plain_record(only_parquet: tuple[str, ...], columns: dict) -> dict:
    record = {}
    for key, value in columns.items():
        if key == "path" or key in only_parquet or value is None:
            continue
        is_box = isinstance(value, dict) and tuple(value) == SIDES
        record[key] = list(value.values()) if is_box else dict(value) if isinstance(value, list) else value
    return record


def _plain_table(folder: str, fields: list[pa.Field], only_parquet: tuple[str, ...] = ()) -> Table:
    """Return a table of videos, whose records have the names of the columns; those of None are left out of records."""
    schema = make_schema(*fields)
    return Table(folder, "source", schema, partial(_plain_columns, schema), partial(_plain_record, only_parquet))


TRACK = [
    pa.field("track", pa.int32()),
    pa.field("label", pa.string()),
    pa.field("probability", pa.float64()),
    pa.field("unsure", pa.bool_()),
    pa.field("first_time", pa.float64()),
    pa.field("last_time", pa.float64()),
    pa.field("frames", pa.int32()),
    pa.field("best_box", BOX),
    pa.field("best_time", pa.float64()),
]
TRACKS = _plain_table("tracks", [*TRACK, pa.field("confirmed_label", pa.string())])
EVENTS = _plain_table("events", [pa.field("event", pa.string()), *TRACK])
COUNTS = pa.map_(pa.string(), pa.int64())
CLIPS = _plain_table(
    "clips",
    [
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("error", pa.string()),
        pa.field("fault", pa.string()),
        pa.field("modified", TIME),
        pa.field("seconds", pa.float64()),
        pa.field("frames", pa.int32()),
        pa.field("lost", COUNTS),
        pa.field("faces", pa.int64()),
        pa.field("tracks", pa.int32()),
        pa.field("people", COUNTS),
        pa.field("events", pa.int32()),
    ],
    only_parquet=("modified",),
)
