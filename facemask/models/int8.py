"""The networks with 8-bit integers, which run faster where the processor has instructions for them."""

import logging
from contextlib import suppress
from pathlib import Path

import cv2

from facemask.errors import InputError
from facemask.models.devices import CPU, Device
from facemask.models.model_file import ModelFile

logger = logging.getLogger(__name__)

SOURCE_NAME = "float32_sha256"  # key, in an int8 file, of the SHA-256 of the float32 file that it was made from
# Instructions that sum products of 8-bit integers in 32 bits, by OpenCV's enum CpuFeatures, which Python does not name.
DOT_PRODUCTS = {"x86 AVX512-VNNI": 23, "ARM64 dot product": 101}


def int8_file(file: Path) -> Path:
    """Return where the same network with 8-bit integers is."""
    return file.with_suffix(".int8.onnx")


def runs_int8() -> bool:
    """Return whether networks with 8-bit integers run right and fast here: on onnxruntime, with one of DOT_PRODUCTS.

    On x86 with AVX2 alone, sums of two products saturate at 16 bits:
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return any(map(cv2.checkHardwareSupport, DOT_PRODUCTS.values()))


def prefer_int8(model: ModelFile, remedy: str, device: Device = CPU) -> ModelFile:
    """Return the int8 file beside a float32 ONNX file, where it exists and `runs_int8` on this device; else the given file.

    An int8 file counts if it was made from this very file, else there is a warning that ends with `remedy`.
    """
    quantized = int8_file(model.path)
    if not (quantized.is_file() and device.runs_int8 and runs_int8()):
        return model
    with suppress(InputError, ValueError):
        found = ModelFile.read(quantized)
        if found.metadata.get(SOURCE_NAME) == model.sha256:
            return found
    logger.warning("%s: not used, because it was not made from %s; %s", quantized, model.path.name, remedy)
    return model
