"""The metadata of a mask classifier's file: classes, input size, margin."""

import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from io import BytesIO

from facemask.errors import InputError
from facemask.labels import BACKGROUND
from facemask.models.model_file import MAX_MODEL, ModelFile

METADATA_NAME = "facemask.json"  # of `ModelInfo`: a file in a .keras file (a zip), a key in the metadata of an .onnx file
SHA256_NAME = "keras_sha256"  # of the .keras file that an .onnx was made from
INPUT_SIZES = range(32, 1025, 32)  # px, for which MobileNetV2 can be built
# How images, 0 to 255, are scaled: factor and offset. tutorial: as Keras' preprocess_input of MobileNetV2, to -1..1.
SCALINGS = {"tutorial": (1 / 127.5, -1.0), "unit": (1 / 255, 0.0), "none": (1.0, 0.0)}
MAX_HIDDEN, MAX_UNITS = 4, 4096  # dense layers of an imported network, and their units
NOT_OURS = "not a model written by train_mask_detector.py; train it again"
# What zipfile raises for corrupt archives; RuntimeError: for encrypted ones.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True)
class ModelInfo:
    """The facts of a trained model that its use needs."""

    classes: tuple[str, ...]  # in the order of the network's outputs
    input_size: int  # px, side of the square input
    margin: float  # of the longer side of a face's box, added on each side of it before it is cropped
    hidden: tuple[int, ...] = ()  # units of the dense layers between features and output, which imported networks have
    scaling: str = "tutorial"  # of the input within the network, a key of SCALINGS

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the classes that a face can have: all but the background."""
        return tuple(name for name in self.classes if name != BACKGROUND)

    @property
    def background(self) -> int | None:
        """Return the index of the class of crops that show no face; None if the model has no such class."""
        return self.classes.index(BACKGROUND) if BACKGROUND in self.classes else None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "ModelInfo":
        """Read what `to_json` writes. Raises ValueError, KeyError or TypeError for any other text."""
        try:
            fields = json.loads(text)
            hidden, scaling = tuple(map(int, fields.get("hidden", ()))), str(fields.get("scaling", "tutorial"))
            classes = tuple(map(str, fields["classes"]))
            info = cls(classes, int(fields["input_size"]), float(fields["margin"]), hidden, scaling)
        except (OverflowError, RecursionError, AttributeError) as error:
            raise ValueError(str(error)) from error
        is_sound = all(name.isprintable() and name for name in info.classes) and len(set(info.classes)) == len(info.classes)
        is_sound = is_sound and len(info.labels) >= 2 and info.scaling in SCALINGS
        is_sound = is_sound and len(hidden) <= MAX_HIDDEN and all(0 < units <= MAX_UNITS for units in hidden)
        if not (is_sound and info.input_size in INPUT_SIZES and 0 <= info.margin <= 1):
            raise ValueError("a value is out of range")
        return info

    @classmethod
    def of_keras(cls, model: ModelFile) -> "ModelInfo":
        """Read it from a `.keras` file, without Keras. Raises InputError if it has none."""
        try:
            with zipfile.ZipFile(BytesIO(model.data)) as archive:
                if sum(part.file_size for part in archive.infolist()) > MAX_MODEL:
                    raise InputError(f"{model.path}: its content is too large for a model of this project; give another")
                return cls.from_json(archive.read(METADATA_NAME))
        except (*ZIP_ERRORS, ValueError, TypeError) as error:
            raise InputError(f"{model.path}: {NOT_OURS}") from error
