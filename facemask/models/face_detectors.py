"""Load a face detector, whichever network it is."""

import logging
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np

from facemask.boxes import MAX_FACES
from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector, int8_file
from facemask.models.model_file import read_model, read_onnx_metadata, sha256
from facemask.models.onnx_session import runs_int8
from facemask.models.res10 import Res10Detector
from facemask.types import Face

logger = logging.getLogger(__name__)


class FaceDetector(Protocol):
    """What finds faces."""

    max_faces: int  # as many as it gives at most

    def detect(self, image: np.ndarray, confidence: float = 0.5) -> list[Face]:
        """Find the faces in `image`, uint8 (H, W, 3) BGR, of at least that confidence, 0..1, surest first."""


def load_face_detector(
    path: str | Path, size: int | None = None, tiles: bool = False, threads: int = 0, max_faces: int = MAX_FACES
) -> FaceDetector:
    """Load an ONNX file: this project's network or the res10 SSD; of a folder what `choose_face_detector` returns.

    `size` is the longest side in pixels to which ours scales a picture (None: as it was measured best), `tiles` whether
    it looks again, closer, at a crowd of small faces; res10 has no tiles, and no other size than its own. `threads` is as
    `open_onnx` takes it. Of more than `max_faces` in a picture the surest are given; res10 gives 200 at most. Raises
    InputError if the file is missing, broken or another network, or if res10 is given a size.
    """
    path = Path(path)
    if path.is_dir():
        path = choose_face_detector(path)
    if not path.is_file():
        raise InputError(f"{path}: no such face detector; give -f the folder face_detector/ or its .onnx file")
    model = read_model(path)
    ours = False
    with suppress(ValueError):
        ours = CenterFaceDetector.METADATA_NAME in read_onnx_metadata(BytesIO(model))
    if ours:
        return CenterFaceDetector.load(path, size or CenterFaceDetector.SIZE, tiles, threads, max_faces)
    if size:
        raise InputError(f"{path}: the res10 SSD sees 300x300 px and no other size; leave --detector-size away")
    return Res10Detector.load(path, max_faces)


def choose_face_detector(folder: Path) -> Path:
    """Return the folder's file to load: ours before the res10 SSD, ours with 8-bit integers where `runs_int8` says so.

    The latter must have been made from the float32 file beside it, else there is a warning.
    """
    names = (CenterFaceDetector.FILE_NAME, Res10Detector.FILE_NAME)
    file = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    quantized = int8_file(file)
    if quantized.is_file() and runs_int8():
        with suppress(ValueError, OSError):
            if read_onnx_metadata(quantized).get(CenterFaceDetector.SOURCE_NAME) == sha256(file):
                return quantized
        remedy = "python -m face_detector.quantize makes it anew"
        logger.warning("%s: not used, for it was not made from %s; %s", quantized, file.name, remedy)
    return file
