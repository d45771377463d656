"""Files of networks: their bytes, checksum and ONNX metadata, read once and without the onnx package."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from facemask.errors import InputError

CHECKSUM_LENGTH = 64  # bytes: a SHA-256 in hexadecimal
MAX_MODEL = 1 << 28  # bytes
CORRUPT = "corrupt or incompatible model (its checksum is wrong or missing); copy it again, or train it again"

# Field numbers of ModelProto and StringStringEntryProto in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
METADATA_PROPS, KEY, VALUE = 14, 1, 2
GRAPH, NODE, OPERATOR, DOMAIN, FUNCTIONS = 7, 1, 4, 7, 25  # and of GraphProto and NodeProto
# Protobuf's wire types: https://protobuf.dev/programming-guides/encoding/
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
CHECKSUM_NAME = "sha256"
MAX_ENTRY = 1 << 20  # bytes of metadata: a longer entry is not ours


@dataclass(frozen=True)
class ModelFile:
    """A model file of this project, read and hashed once; its checksum was right."""

    path: Path
    data: bytes  # all of the file
    sha256: str  # of all of the file, in hexadecimal

    @classmethod
    def read(cls, path: str | Path) -> "ModelFile":
        """Read a file. Raises InputError if it is missing, too large, or does not end with the checksum of the rest.

        Without the right checksum it is corrupt, truncated or not of this project.
        """
        path = Path(path)
        try:
            if path.exists() and not path.is_file():
                raise InputError(f"{path}: not a regular file; give a model of this project")
            if path.stat().st_size > MAX_MODEL:
                size = path.stat().st_size / 1e9
                raise InputError(f"{path}: {size:.1f} GB are too many for a model of this project; give another")
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the name") from error
        digest = hashlib.sha256(memoryview(data)[:-CHECKSUM_LENGTH])
        if data[-CHECKSUM_LENGTH:] != digest.hexdigest().encode():
            raise InputError(f"{path}: {CORRUPT}")
        digest.update(data[-CHECKSUM_LENGTH:])
        return cls(path, data, digest.hexdigest())

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Return the metadata_props of an ONNX file. Raises ValueError if it is not an ONNX file."""
        return read_onnx_metadata(self.data)


def as_model_file(model: "ModelFile | str | Path") -> ModelFile:
    """Return a model file that is read already as it is, else read it."""
    return model if isinstance(model, ModelFile) else ModelFile.read(model)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(data: bytes) -> bytes:
    """Return the SHA-256 of `data` in hexadecimal: a model file ends with that of all bytes before it."""
    return hashlib.sha256(data).hexdigest().encode()


def read_onnx_metadata(model: bytes) -> dict[str, str]:
    """Return the metadata_props of a serialized ONNX model. Raises ValueError if it is not one."""
    metadata = {}
    for _, entry in _fields(model, {METADATA_PROPS}, MAX_ENTRY):
        texts = {number: text.decode() for number, text in _fields(entry, {KEY, VALUE}, MAX_ENTRY)}
        metadata[texts.get(KEY, "")] = texts.get(VALUE, "")
    return metadata


def read_operators(model: bytes) -> set[str]:
    """Return the names of a serialized ONNX model's operators, after their domains. Raises ValueError if it is not one."""
    operators = set()
    for number, part in _fields(model, {GRAPH, FUNCTIONS}, len(model)):
        if number == FUNCTIONS:
            operators.add("functions")
            continue
        for _, node in _fields(part, {NODE}, len(part)):
            names = {name: text.decode() for name, text in _fields(node, {OPERATOR, DOMAIN}, MAX_ENTRY)}
            operators.add(".".join(filter(None, (names.get(DOMAIN), names.get(OPERATOR, "")))))
    return operators


def with_checksum(model: bytes) -> bytes:
    """Return a serialized ONNX model with its checksum as the last entry of its metadata, at the very end."""
    key = CHECKSUM_NAME.encode()
    entry = bytes([KEY << 3 | LENGTH_DELIMITED, len(key)]) + key + bytes([VALUE << 3 | LENGTH_DELIMITED, CHECKSUM_LENGTH])
    head = bytes([METADATA_PROPS << 3 | LENGTH_DELIMITED, len(entry) + CHECKSUM_LENGTH])  # below 128: a varint of one byte
    return model + head + entry + checksum(model + head + entry)


def _fields(message: bytes, wanted: set[int], max_length: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of a message's wanted fields of at most `max_length` bytes; all others are skipped."""
    file, size = io.BytesIO(message), len(message)
    while file.tell() < size:
        key = _varint(file)
        number, wire_type = key >> 3, key & 7
        if number == 0 or key >> 32:  # protobuf drops the upper bits of longer numbers, and would read another field
            raise ValueError("no field has this number")
        if wire_type == VARINT:
            _varint(file)
            continue
        if wire_type == LENGTH_DELIMITED:
            length = _varint(file)
        elif wire_type in (FIXED64, FIXED32):
            length = 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {wire_type}")
        if file.tell() + length > size:
            raise ValueError("truncated")
        if number in wanted and wire_type == LENGTH_DELIMITED and length <= max_length:
            yield number, file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


def _varint(file: io.BytesIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("truncated")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("number of more than 64 bits")
