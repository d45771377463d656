"""Files of networks: read their bytes, checksum and ONNX metadata, without the onnx package."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from facemask.errors import InputError

CHECKSUM_LENGTH = 64  # bytes: a SHA-256 in hexadecimal
LARGEST_MODEL = 1 << 28  # bytes
DAMAGED = "damaged, or no model of this version (its checksum is wrong or missing); copy it again, or train it anew"

# Of ModelProto and StringStringEntryProto in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
METADATA_PROPS, KEY, VALUE = 14, 1, 2
GRAPH, NODE, OPERATOR, DOMAIN, FUNCTIONS = 7, 1, 4, 7, 25  # of ModelProto, GraphProto, NodeProto
# Protobuf's wire types: https://protobuf.dev/programming-guides/encoding/
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
CHECKSUM_NAME = "sha256"
LONGEST_ENTRY = 1 << 20  # bytes of metadata: a longer one is not ours


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


def read_onnx_metadata(file: str | Path | BinaryIO) -> dict[str, str]:
    """Return the metadata_props of a file, by its path or open. Raises ValueError if it is no ONNX file, OSError if it
    cannot be read.
    """
    metadata = {}
    with open(file, "rb") if isinstance(file, str | Path) else file as file:
        for number, entry in _fields(file, wanted={METADATA_PROPS}):
            texts = {number: text.decode() for number, text in _fields(io.BytesIO(entry), wanted={KEY, VALUE})}
            metadata[texts.get(KEY, "")] = texts.get(VALUE, "")
    return metadata


def read_operators(model: bytes) -> set[str]:
    """Return the names of the operators in a serialized model, with their domains before them. Raises ValueError as above."""
    operators = set()
    for number, part in _fields(io.BytesIO(model), {GRAPH, FUNCTIONS}, longest=len(model)):
        if number == FUNCTIONS:
            operators.add("functions")
            continue
        for _, node in _fields(io.BytesIO(part), {NODE}, longest=len(part)):
            names = {name: text.decode() for name, text in _fields(io.BytesIO(node), {OPERATOR, DOMAIN})}
            operators.add(".".join(filter(None, (names.get(DOMAIN), names.get(OPERATOR, "")))))
    return operators


def with_checksum(model: bytes) -> bytes:
    """Return a serialized model with its checksum as one more entry of its metadata, at the very end (`files.read_model`)."""
    key = CHECKSUM_NAME.encode()
    entry = bytes([KEY << 3 | LENGTH_DELIMITED, len(key)]) + key + bytes([VALUE << 3 | LENGTH_DELIMITED, CHECKSUM_LENGTH])
    head = bytes([METADATA_PROPS << 3 | LENGTH_DELIMITED, len(entry) + CHECKSUM_LENGTH])  # below 128: a varint of one byte
    return model + head + entry + checksum(model + head + entry)


def _fields(file: BinaryIO, wanted: set[int], longest: int = LONGEST_ENTRY) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of a message's wanted fields of at most `longest` bytes, stepping over all others."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    while file.tell() < size:
        key = _varint(file)
        number, wire_type = key >> 3, key & 7
        if number == 0 or key >> 32:  # of longer ones protobuf drops the upper bits, and would read another field
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
        if number in wanted and wire_type == LENGTH_DELIMITED and length <= longest:
            yield number, file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("truncated")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("number of more than 64 bits")
