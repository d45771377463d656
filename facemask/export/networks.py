"""The two networks to export: their ONNX files with a fixed input size, and what their use needs."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector, PlattScaling
from facemask.models.face_detectors import NO_FILE
from facemask.models.model_file import ModelFile
from facemask.models.model_info import METADATA_NAME, NOT_OURS, SHA256_NAME, ModelInfo


@dataclass(frozen=True)
class Exported:
    """A network with a batch of 1 and a fixed size: float32 (1, 3, size, size) RGB 0..255."""

    name: str  # of its files
    size: int  # px, side of its input
    model: onnx.ModelProto


def read_face_detector(path: Path, size: int) -> tuple[Exported, PlattScaling]:
    """Read the float32 face detector, a file or the folder with it, for images of `size` x `size` px; with its calibration.

    Raises InputError if it is missing, corrupt or another network.
    """
    path = path / CenterFaceDetector.FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path}: {NO_FILE}")
    model = ModelFile.read(path)
    try:
        calibration = PlattScaling.from_json(model.metadata[CenterFaceDetector.METADATA_NAME])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not this project's own face detector; give -f the folder face_detector/") from error
    return Exported("face_detector", size, with_fixed_size(model, size)), calibration


def read_classifier(path: Path) -> tuple[Exported, ModelInfo]:
    """Read the mask classifier from an .onnx file, or of a .keras file the .onnx beside it; with its metadata.

    Raises InputError if it is missing, corrupt or another network, or was made from another .keras file.
    """
    file = path.with_suffix(".onnx")
    if not path.is_file() or not file.is_file():
        remedy = f"python -m facemask {path} makes it" if path.is_file() else "give -m the model that was trained"
        raise InputError(f"{file if path.is_file() else path}: no such file; {remedy}")
    model = ModelFile.read(file)
    try:
        info = ModelInfo.from_json(model.metadata[METADATA_NAME])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{file}: {NOT_OURS}") from error
    if path.suffix == ".keras" and model.metadata.get(SHA256_NAME) != ModelFile.read(path).sha256:
        raise InputError(f"{file}: was made from another .keras file; python -m facemask {path} makes it again")
    return Exported("mask_classifier", info.input_size, with_fixed_size(model, info.input_size)), info


def with_fixed_size(model: ModelFile, size: int) -> onnx.ModelProto:
    """Return a network for one image of `size` x `size` px; its metadata are dropped, the shapes of its values too."""
    proto = onnx.load_from_string(model.data)
    del proto.metadata_props[:]
    (images,) = proto.graph.input
    for dimension, length in zip(images.type.tensor_type.shape.dim, (1, 3, size, size), strict=True):
        dimension.dim_value = length
    (output,) = proto.graph.output
    for dimension in output.type.tensor_type.shape.dim:
        dimension.ClearField("value")
    return onnx.shape_inference.infer_shapes(proto, strict_mode=True)
