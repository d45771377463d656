"""What a mask classifier's file says of it: classes, input size, margin."""

import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from facemask.errors import InputError
from facemask.models.model_file import LARGEST_MODEL

METADATA_NAME = "facemask.json"  # of ModelInfo in a .keras file (a zip) and among an .onnx file's metadata
SHA256_NAME = "keras_sha256"  # of the .keras file that an .onnx was made from
INPUT_SIZES = range(32, 1025, 32)  # px that MobileNetV2 may be built for
# What zipfile raises of broken archives; RuntimeError: of encrypted ones.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True)
class ModelInfo:
    """What one must know of a trained model to use it."""

    classes: tuple[str, ...]  # in the order of the model's outputs
    input_size: int  # px, side of the square input
    margin: float  # of the face's longer side, added on each side of its box before it is cut out

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "ModelInfo":
        """Raises ValueError, KeyError or TypeError if the text is not what `to_json` writes."""
        try:
            fields = json.loads(text)
            info = cls(tuple(map(str, fields["classes"])), int(fields["input_size"]), float(fields["margin"]))
        except (OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error
        is_sound = all(name.isprintable() and name for name in info.classes) and len(set(info.classes)) == len(info.classes) >= 2
        if not (is_sound and info.input_size in INPUT_SIZES and 0 <= info.margin <= 1):
            raise ValueError("classes, input_size or margin are none")
        return info

    @classmethod
    def of_keras(cls, path: str | Path, model: bytes) -> "ModelInfo":
        """Read it from the bytes of a `.keras` file, without Keras. Raises InputError if it has none."""
        try:
            with zipfile.ZipFile(BytesIO(model)) as archive:
                if sum(part.file_size for part in archive.infolist()) > LARGEST_MODEL:
                    raise InputError(f"{path}: what is in it is too long for a model of this project; give another")
                return cls.from_json(archive.read(METADATA_NAME))
        except (*ZIP_ERRORS, ValueError, TypeError) as error:
            raise InputError(f"{path}: not a model written by train_mask_detector.py; train it anew") from error
