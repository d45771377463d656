"""Load a face detector, whichever network it is."""

from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from facemask.boxes import MAX_FACES
from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector
from facemask.models.devices import CPU, Device, warn_of_other_library
from facemask.models.int8 import prefer_int8
from facemask.models.model_file import ModelFile
from facemask.models.res10 import Res10Detector
from facemask.types import Face

NO_FILE = "no such face detector; give -f the folder face_detector/ or its .onnx file"


class FaceDetector(Protocol):
    """A network that detects faces; several threads may use it at once."""

    @property
    def name(self) -> str:
        """Return the name of the file that it was loaded from."""

    @property
    def size(self) -> int:
        """Return the longest side in px to which it scales an image, unless a call says otherwise."""

    @property
    def max_faces(self) -> int:
        """Return the maximum number of faces that it returns for one image."""

    def detect(self, image: np.ndarray, confidence: float = 0.5, size: int | None = None) -> list[Face]:
        """Detect the faces in `image`, uint8 (H, W, 3) BGR, of at least that confidence, 0..1, most confident first.

        `size` is the longest side in px to which the image is scaled (None: the detector's `size`). Raises InputError
        if the network cannot process the image or has no such size.
        """


def load_face_detector(
    path: str | Path,
    size: int | None = None,
    tiles: bool = False,
    threads: int = 0,
    max_faces: int = MAX_FACES,
    device: Device = CPU,
) -> FaceDetector:
    """Load an ONNX file: this project's network or the res10 SSD; of a folder, the file that `choose_face_detector` returns.

    `size` is the longest side in px to which ours scales an image (None: 576, which was measured best). `tiles` is
    whether it infers the parts with small faces again, enlarged and in tiles. res10 has no tiles and one size. `threads` is
    that of `open_onnx`, as is `device`. At most `max_faces` are returned for one image, the most confident ones; res10
    returns at most 200, and runs on the CPU. Raises InputError if the file is missing, corrupt or another network, or if
    res10 is given a size.
    """
    path = Path(path)
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: {NO_FILE}")
    model = choose_face_detector(path, device) if path.is_dir() else ModelFile.read(path)
    with suppress(ValueError):  # not an ONNX file
        if CenterFaceDetector.METADATA_NAME in model.metadata:
            return CenterFaceDetector.load(model, size, tiles, threads, max_faces, device)
    if size:
        raise InputError(f"{model.path}: {Res10Detector.WRONG_SIZE}")
    warn_of_other_library(device, model.path.name, "OpenCV")
    return Res10Detector.load(model, max_faces)


def choose_face_detector(folder: Path, device: Device = CPU) -> ModelFile:
    """Read the folder's face detector: ours before the res10 SSD, ours with 8-bit integers if `prefer_int8`.

    Raises InputError if the folder has no face detector, or a corrupt one.
    """
    names = (CenterFaceDetector.FILE_NAME, Res10Detector.FILE_NAME)
    file = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    if not file.is_file():
        raise InputError(f"{file}: {NO_FILE}")
    return prefer_int8(ModelFile.read(file), "python -m face_detector.quantize makes it again", device)
