"""Read and write pictures."""

import glob
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from imutils.paths import list_files

from facemask.errors import InputError
from facemask.files import atomic_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ALPHA_SUFFIXES = (".png", ".webp", ".tif", ".tiff")
START_OF_JPEG, START_OF_SCAN = b"\xff\xd8", b"\xda"
STARTS_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_HEAD = 1 << 20  # bytes, in which a JPEG's size stands
REDUCED_FLAGS = {
    1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8
}  # fmt: skip
LARGEST_FILE = 1 << 30  # bytes of a picture
TRIAL_TIME = 10.0  # s for a window to open
REDUCED_SIDE = 1920  # px: as small as a JPEG's longest side is made


def find_images(sources: Iterable[str]) -> list[Path]:
    """List the pictures that files, folders (with their subfolders) and globs name, each once, in order.

    Raises InputError where a source names none.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            paths = sorted(Path(name) for name in list_files(source, validExts=IMAGE_SUFFIXES))
            if not paths:
                raise InputError(f"{source}: no pictures in this folder; known are {' '.join(IMAGE_SUFFIXES)}")
        elif path.exists() or not glob.has_magic(source):
            paths = [path]
        else:
            paths = sorted(match for match in map(Path, glob.glob(source, recursive=True)) if match.is_file())
            if not paths:
                raise InputError(f"{source}: no file matches; check the pattern")
        found.update(dict.fromkeys(paths))
    return list(found)


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3) BGR, upright by its EXIF, transparent parts on white, 16 bits cut to 8.

    Raises InputError if it is missing, empty, broken, too large (2^30 pixels, or OPENCV_IO_MAX_IMAGE_PIXELS) or no
    picture.
    """
    return _decode(path, _read(path))


@dataclass(frozen=True)
class Picture:
    """A picture of `width` x `height` px; `image` is uint8 BGR, its sides those divided by `reduction`, rounded up."""

    image: np.ndarray
    width: int
    height: int
    reduction: int


def read_reduced(path: str | Path, least_side: int = REDUCED_SIDE) -> Picture:
    """Read a picture as `read_image` does, a large JPEG at 1/2, 1/4 or 1/8 of its size, which takes a third of the time.

    Its longest side is at least `least_side` px then.
    """
    data = _read(path)
    width, height = _jpeg_size(data) or (0, 0)
    reduction = max(n for n in REDUCED_FLAGS if n == 1 or max(width, height) >= n * least_side)
    # By its reduced shape, as stored or turned by EXIF, one knows the whole one's.
    shapes = {tuple(-(-side // reduction) for side in sides): sides for sides in ((height, width), (width, height))}
    if reduction > 1 and (width == height or len(shapes) == 2):
        image = _decode(path, data, REDUCED_FLAGS[reduction])
        if image.shape[:2] in shapes:
            height, width = shapes[image.shape[:2]]
            return Picture(image, width, height, reduction)
    image = _decode(path, data)
    return Picture(image, image.shape[1], image.shape[0], 1)


def _read(path: str | Path) -> np.ndarray:
    try:
        size = os.stat(path).st_size
        if size > LARGEST_FILE:
            raise InputError(f"{path}: {size / 1e9:.1f} GB are too many for a picture; make it smaller")
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the name") from error
    if not data.size:
        raise InputError(f"{path}: the file is empty; copy it again")
    return data


def _decode(path: str | Path, data: np.ndarray, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    try:
        image = cv2.imdecode(data, flags)
        if image is not None and Path(path).suffix.lower() in ALPHA_SUFFIXES:
            image = _on_white(image, data)
    except cv2.error as error:
        reason = "too many pixels" if "PIXELS" in str(error) else "broken"
        raise InputError(f"{path}: cannot be decoded ({reason}); make it smaller or save it again") from error
    if image is None or _is_cut_jpeg(data):
        raise InputError(f"{path}: not a picture, or a broken one; give a JPEG, PNG, WebP, BMP or TIFF file")
    return image


def _on_white(image: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Lay `image`, decoded from `data`, on white where it is transparent; one that EXIF turned is left as it is."""
    unchanged = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if unchanged is None or unchanged.ndim != 3 or unchanged.shape[2] != 4:
        return image
    if not np.array_equal(image, cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)):
        return image
    alpha = unchanged[:, :, 3:].astype(np.float32) / np.iinfo(unchanged.dtype).max
    return np.rint(image * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _is_cut_jpeg(data: np.ndarray) -> bool:
    """Tell whether `data` is a JPEG without an end (OpenCV before 4.11 decodes those, and leaves the rest grey)."""
    data = data.tobytes()
    ends = [2, *(end for _, _, end in _jpeg_segments(data))]
    return data.startswith(START_OF_JPEG) and data.find(b"\xff\xd9", ends[-1]) < 0  # behind a thumbnail's end


def _jpeg_size(data: np.ndarray) -> tuple[int, int] | None:
    """Return width and height of a JPEG as stored, before EXIF turns it; None for another file."""
    head = data[:JPEG_HEAD].tobytes()
    for marker, start, end in _jpeg_segments(head):
        if marker in STARTS_OF_FRAME and start + 9 <= min(end, len(head)):
            height, width = (int.from_bytes(head[start + at : start + at + 2], "big") for at in (5, 7))
            return width, height
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of a JPEG's segments, up to the picture's own data (ITU-T T.81, annex B)."""
    start = 2 if data.startswith(START_OF_JPEG) else len(data)
    while data[start : start + 1] == b"\xff" and data[start + 1 : start + 2] != START_OF_SCAN:
        if data[start + 1 : start + 2] == b"\xff":  # a fill byte
            start += 1
            continue
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        yield data[start + 1], start, end
        start = end


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write `image`, uint8 (H, W, 3) BGR, in the format of the suffix, whole or not at all; InputError if it cannot."""
    path = Path(path)
    try:
        done, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"{path}: OpenCV cannot write this kind of picture; use .jpg or .png")
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free some space, or choose another place") from error


def has_display() -> bool:
    """Tell whether a window can be opened: there is a screen that answers, and OpenCV was built with windows."""
    if "NONE" in next((line for line in cv2.getBuildInformation().splitlines() if "GUI:" in line), "NONE"):
        return False
    if not sys.platform.startswith("linux"):
        return True
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    # Of a screen that is named but does not answer Qt makes an end of the process, so another one tries.
    trial = [sys.executable, "-c", "import cv2; cv2.namedWindow('trial')"]
    try:
        return subprocess.run(trial, capture_output=True, timeout=TRIAL_TIME).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def window_is_open(name: str) -> bool:
    """Tell whether OpenCV's window of that name is there still."""
    try:
        return cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # Qt's, once the last window is closed
        return False
