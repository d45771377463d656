"""Load a face detector, whichever network it is."""

from pathlib import Path
from typing import Protocol

import numpy as np

from facemask.boxes import Face
from facemask.errors import InputError
from facemask.masked_faces import MaskedFaceDetector
from facemask.onnx_metadata import read_onnx_metadata
from facemask.res10 import Res10Detector


class FaceDetector(Protocol):
    """What finds faces."""

    def detect(self, image: np.ndarray, confidence: float = 0.5) -> list[Face]:
        """Find the faces in `image`, uint8 (H, W, 3) BGR, of at least that confidence, 0..1, surest first."""


def load_face_detector(path: str | Path, size: int | None = None, tiles: bool = False) -> FaceDetector:
    """Load an ONNX file: this project's network or the res10 SSD; in a folder, ours where it is there.

    `size` is the longest side in pixels to which ours scales a picture (None: as it was measured best), `tiles` whether
    it looks again, closer, at a crowd of small faces; res10 has no tiles, and no other size than its own. Raises
    InputError if the file is missing, broken or another network, or if res10 is given a size.
    """
    path = Path(path)
    if path.is_dir():
        names = (MaskedFaceDetector.FILE_NAME, Res10Detector.FILE_NAME)
        path = next((path / name for name in names if (path / name).is_file()), path / names[0])
    if not path.is_file():
        raise InputError(f"{path}: no such face detector; give -f the folder face_detector/ or its .onnx file")
    try:
        ours = MaskedFaceDetector.METADATA_NAME in read_onnx_metadata(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not an ONNX file, or a part of one ({error}); copy face_detector/ again") from error
    if ours:
        return MaskedFaceDetector.load(path, size or MaskedFaceDetector.SIZE, tiles)
    if size:
        raise InputError(f"{path}: the res10 SSD sees 300x300 px and no other size; leave --detector-size away")
    return Res10Detector.load(path)
