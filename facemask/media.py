"""Read and write pictures and video."""

import glob
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from imutils.paths import list_files

from facemask.errors import InputError
from facemask.files import atomic_path, check_writable, partial_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ALPHA_SUFFIXES = (".png", ".webp", ".tif", ".tiff")
START_OF_JPEG, START_OF_SCAN = b"\xff\xd8", b"\xda"
STARTS_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_HEAD = 1 << 20  # bytes, in which a JPEG's size stands
REDUCED_FLAGS = {
    1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8
}  # fmt: skip
VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}  # encoders that every build of OpenCV has
LARGEST_FILE = 1 << 30  # bytes of a picture
REDUCED_SIDE = 1920  # px: as small as a JPEG's longest side is made
DEFAULT_RATE = 25.0  # frames per second, for sources that state none
HIGHEST_RATE = 240.0  # above it a stated rate is a container's time base, not a rate


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
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@dataclass(frozen=True)
class Frame:
    """A picture of a video: `number` from 0, `time` in seconds from the first."""

    number: int
    time: float
    image: np.ndarray  # uint8 (H, W, 3) BGR


class VideoSource(AbstractContextManager):
    """A camera (its index, as "0"), a video file or a stream's URL, opened; `frames()` may be walked once."""

    def __init__(self, source: str) -> None:
        """Raises InputError if it cannot be opened."""
        self.source = source
        self.is_camera = source.isdecimal() and int(source) < 1000
        self.is_live = self.is_camera or "://" in source or Path(source).is_char_device()
        if not self.is_live and not Path(source).is_file():
            raise InputError(f"{source}: no such video; give a file, a stream's URL, or a camera's index (0 is the first)")
        self._capture = cv2.VideoCapture(int(source) if self.is_camera else source)
        if not self._capture.isOpened():
            if self.is_camera:
                raise InputError(f"camera {source}: cannot be opened; plug it in, try -i 1, or give a video: -i FILE")
            shown = re.sub(r"//[^/@]*@", "//", source)  # a password is nobody's business
            raise InputError(f"{shown}: cannot be opened as a video; check that it is one and plays elsewhere")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.states_rate = math.isfinite(rate) and 0 < rate <= HIGHEST_RATE
        self.rate = rate if self.states_rate else DEFAULT_RATE  # frames per second
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frame_count = int(count) if not self.is_live and count > 0 else None  # as the file states it

    def frames(self) -> Iterator[Frame]:
        """Yield every frame in order; times of a live source are those of arrival."""
        number, start = 0, None
        while True:
            more, image = self._capture.read()
            if not more:
                return
            now = cv2.getTickCount() / cv2.getTickFrequency()
            start = now if start is None else start
            yield Frame(number, now - start if self.is_live else number / self.rate, image)
            number += 1

    def __exit__(self, *_: object) -> None:
        self._capture.release()


def check_video_output(path: Path) -> None:
    """Raise InputError unless a video of that name can be written."""
    if path.suffix.lower() not in VIDEO_CODECS:
        raise InputError(f"{path}: cannot write this kind of video; use {' or '.join(VIDEO_CODECS)}")
    check_writable(path)


class VideoSink(AbstractContextManager):
    """Writes frames to an MP4 (or AVI) file, which gets its name when the block ends, also by an error or Ctrl-C."""

    def __init__(self, path: str | Path, rate: float) -> None:
        """Raises InputError as `check_video_output` does. The first frame opens the file and gives it its size."""
        self.path, self.rate = Path(path), rate
        check_video_output(self.path)
        self._partial = partial_path(self.path)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._count = 0

    def write(self, image: np.ndarray) -> None:
        """Append a frame, uint8 (H, W, 3) BGR; one of another size than the first is fitted to it."""
        if self._writer is None:
            self._size = image.shape[1], image.shape[0]
            codec = cv2.VideoWriter.fourcc(*VIDEO_CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._partial), codec, self.rate, self._size)
            if not self._writer.isOpened():
                self._writer = None
                raise InputError(f"{self.path}: OpenCV cannot write this video; try another suffix or place")
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size)
        self._writer.write(image)
        self._count += 1

    def __exit__(self, *error: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        # VideoWriter does not tell of a full disk; the file does.
        check = cv2.VideoCapture(str(self._partial))
        whole = check.isOpened() and check.get(cv2.CAP_PROP_FRAME_COUNT) >= self._count
        check.release()
        if not whole:
            raise InputError(f"{self.path}: not all of the video was written, see {self._partial}; is the disk full?")
        os.replace(self._partial, self.path)


def has_display() -> bool:
    """Tell whether a window can be opened: there is a screen, and OpenCV was built with windows."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return "NONE" not in next((line for line in cv2.getBuildInformation().splitlines() if "GUI:" in line), "NONE")
