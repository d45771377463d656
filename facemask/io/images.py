"""Read and write pictures."""

import errno
import os
import re
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from facemask.errors import InputError, OutputError
from facemask.io.outputs import FREE_SPACE, atomic_path

GIVE = "give a JPEG, PNG, WebP, BMP or TIFF file"
NO_PICTURE = f"not a picture, or a broken one; {GIVE}"
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)  # of a JPEG, within a picture's data; ITU-T T.81, annex B
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
REDUCED_FLAGS = {
    1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8
}  # fmt: skip
LONGEST_EXIF = 1 << 20  # bytes
MOST_CHUNKS = 10_000  # of a PNG, before its picture's
ORIENTATION = 0x0112  # EXIF's tag; 1..8
FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # cv2.flip's code by EXIF's orientation; 5 to 8 are transposed before
MAX_PIXELS = 250_000_000  # of a picture, unless told otherwise: phones make 200 million
MAX_SCANNED = 2.5e9  # pixels times passes over them: a progressive JPEG may ask for thousands of passes, and usually has ten
LARGE_PIXELS, LARGE_BYTES = 1 << 25, 1 << 26  # of pictures that are not to be worked on several at once
LASTING_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)  # the next picture would get them too
STRIP = 256  # rows blended at once: bounds the memory
LARGEST_FILE = 1 << 30  # bytes


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3) BGR, upright by its EXIF, transparent parts on white, 16 bits cut to 8.

    Of an animation the first frame is read. Raises InputError as `EncodedImage.read` and `decode` do.
    """
    return EncodedImage.read(path, max_pixels).decode()


@dataclass(frozen=True)
class EncodedImage:
    """A picture's file, read and not yet decoded: Pillow has told its header, OpenCV will decode it."""

    path: Path
    data: bytes  # all of the file
    width: int  # px, as shown upright
    height: int
    header: "Header"
    has_end: bool  # False for a JPEG that was cut off

    @classmethod
    def read(cls, path: str | Path, max_pixels: int = MAX_PIXELS) -> "EncodedImage":
        """Read a file. Raises InputError if it is missing, empty, no picture of a known kind, or of too many pixels."""
        path = Path(path)
        with _open(path) as file:
            try:
                data = file.read(os.fstat(file.fileno()).st_size)  # no more than it had when opened: it may grow for ever
            except OSError as error:  # a broken disk or card
                raise InputError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
        if not data:
            raise InputError(f"{path}: the file is empty; copy it again")
        header = Header.read(path, BytesIO(data))
        width, height = header.width, header.height
        if width * height > max_pixels:
            raise InputError(
                f"{path}: {width} x {height} pixels are more than {max_pixels}; make it smaller, or give --max-pixels more"
            )
        passes, has_end = (1, True) if header.first_scan is None else _passes(data, header.first_scan)
        if width * height * passes > MAX_SCANNED and passes > 1:
            raise InputError(f"{path}: a JPEG in too many passes; save it again")
        if header.orientation >= 5:
            width, height = height, width
        return cls(path, data, width, height, header, has_end)

    def decode_scale(self, min_side: int) -> int:
        """Return the largest divisor of a JPEG's sides in decoding, 1, 2, 4 or 8, that leaves the longest side `min_side` px.

        Other formats have none but 1.
        """
        longest = max(self.width, self.height) if self.header.first_scan is not None else 0
        return max(scale for scale in REDUCED_FLAGS if scale == 1 or longest >= scale * min_side)

    def decode(self, scale: int = 1) -> np.ndarray:
        """Return the image as `read_image` does, its sides divided by `scale` and rounded up (at 2, a third of the time).

        Raises InputError if it is broken.
        """
        broken = InputError(f"{self.path}: {NO_PICTURE}")
        # OpenCV before 4.11 decodes JPEGs without an end, and leaves the rest grey.
        if not self.has_end:
            raise broken
        flags = cv2.IMREAD_UNCHANGED if self.header.has_alpha else REDUCED_FLAGS[scale]
        try:
            image = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        except (cv2.error, MemoryError) as error:
            raise broken from error
        if image is None or image.dtype not in (np.uint8, np.uint16):
            raise broken
        if image.dtype == np.uint16:
            image = np.ascontiguousarray(image.astype("<u2", copy=False).view(np.uint8)[..., 1::2])  # the upper bytes
        if image.ndim == 2 or image.shape[2] == 1:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        if image.shape[2] == 4:
            image = _on_white(image)
        image = _turn(image, self.header.orientation)
        if image.shape != (-(-self.height // scale), -(-self.width // scale), 3):
            raise broken  # two libraries read two sizes
        return image


def _passes(data: bytes, first_scan: int) -> tuple[int, bool]:
    """Return in how many scans a JPEG is stored, and whether it has an end; `first_scan` is where the first one's data begin."""
    passes, at = 1, first_scan
    while (marker := MARKER.search(data, at)) and marker[1][0] != END_OF_IMAGE:
        passes += marker[1][0] == START_OF_SCAN
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return passes, marker is not None


def is_large(path: Path) -> bool:
    """Tell whether a picture is so large that several of its kind in memory would be too many; False if it is none."""
    with suppress(InputError), _open(path) as file:
        if os.fstat(file.fileno()).st_size > LARGE_BYTES:
            return True
        header = Header.read(path, file)
        return header.width * header.height > LARGE_PIXELS
    return False


def _open(path: Path) -> BinaryIO:
    """Open an ordinary file to read it. Raises InputError if it is none, or too long."""
    try:
        # Without O_NONBLOCK the opening of a FIFO waits for a writer, maybe for ever.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "check your rights" if isinstance(error, PermissionError) else "check the name"
        raise InputError(f"{path}: cannot be read ({reason}); {remedy}") from error
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise InputError(f"{path}: is no ordinary file; {GIVE}")
    if status.st_size > LARGEST_FILE:
        file.close()
        raise InputError(f"{path}: {status.st_size / 1e9:.1f} GB are too many for a picture; make it smaller")
    return file


@dataclass(frozen=True)
class Header:
    """What a picture's file says of it before it is decoded."""

    width: int  # px, as stored
    height: int
    orientation: int = 1  # 1..8, how what is decoded must be turned (EXIF 2.32, 4.6.4)
    has_alpha: bool = False
    first_scan: int | None = None  # byte at which a JPEG's own data begin; None for other kinds

    @classmethod
    def read(cls, path: Path, file: BinaryIO) -> "Header":
        """Read it from a file that is open at its beginning. Raises InputError if it is none of the known kinds."""
        try:
            start = file.read(8)
            file.seek(0)
            reader = next((reader for signature, reader in KINDS.items() if start.startswith(signature)), None)
            header = reader(file) if reader else None
        except Exception as error:  # Pillow's and struct's: of broken files it raises what comes
            raise InputError(f"{path}: {NO_PICTURE}") from error
        if header is None or min(header.width, header.height) < 1:
            raise InputError(f"{path}: {NO_PICTURE}")
        return header

    @classmethod
    def by_pillow(cls, plugin: type[ImageFile], file: BinaryIO) -> "Header":
        """Read it with Pillow's class for that kind. Raises what Pillow does."""
        picture = plugin(file)  # not Image.open: that has limits of its own, and warns
        has_alpha = plugin is not BmpImageFile and ("A" in picture.mode or "transparency" in picture.info)
        first_scan = file.tell() if plugin is JpegImageFile else None
        return cls(*picture.size, _orientation(picture.info.get("exif")), has_alpha, first_scan)

    @classmethod
    def of_png(cls, file: BinaryIO) -> "Header":
        """Read a PNG's chunks up to its picture's: Pillow refuses the picture for what is wrong with a comment in it."""
        file.seek(8)
        width = height = colour = 0
        orientation, has_alpha = 1, False
        for _ in range(MOST_CHUNKS):
            head = file.read(8)
            kind = head[4:]
            if not head or kind == b"IDAT":
                return cls(width, height, orientation, has_alpha)
            length = int.from_bytes(head[:4], "big")
            if kind == b"IHDR":
                width, height, _, colour = struct.unpack(">IIBB", file.read(10))
                length -= 10
            elif kind == b"eXIf" and length < LONGEST_EXIF:
                orientation = _orientation(b"Exif\0\0" + file.read(length))
                length = 0
            has_alpha |= kind == b"tRNS" or colour in (4, 6)
            file.seek(length + 4, os.SEEK_CUR)
        raise ValueError("too many chunks")


def _orientation(exif: bytes | None) -> int:
    """Return what EXIF says of how to turn a picture, 1..8; 1, not to, where it says nothing that is right."""
    tags = Image.Exif()
    with suppress(Exception):  # as in Header.read
        tags.load(exif)
        if tags.get(ORIENTATION) in range(1, 9):
            return int(tags[ORIENTATION])
    return 1


# What a file begins with tells its kind, whatever its name; OpenCV would decode many other kinds too, little tested ones.
KINDS = {
    b"\xff\xd8\xff": partial(Header.by_pillow, JpegImageFile),
    b"\x89PNG\r\n\x1a\n": Header.of_png,
    b"RIFF": partial(Header.by_pillow, WebPImageFile),
    b"BM": partial(Header.by_pillow, BmpImageFile),
    b"II*\0": partial(Header.by_pillow, TiffImageFile),
    b"MM\0*": partial(Header.by_pillow, TiffImageFile),
    b"II+\0": partial(Header.by_pillow, TiffImageFile),
    b"MM\0+": partial(Header.by_pillow, TiffImageFile),
}


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = cv2.transpose(image)
    return cv2.flip(image, FLIPS[orientation]) if orientation in FLIPS else image


def _on_white(image: np.ndarray) -> np.ndarray:
    """Lay `image`, uint8 (H, W, 4) BGR and alpha, on white; returns uint8 (H, W, 3)."""
    opaque = np.empty((*image.shape[:2], 3), np.uint8)
    for start in range(0, len(image), STRIP):
        strip = image[start : start + STRIP]
        colour, alpha = cv2.cvtColor(strip, cv2.COLOR_BGRA2BGR), strip[..., 3:]
        if alpha.min() < 255:
            share = alpha.astype(np.float32) / 255
            colour = np.rint(colour * share + 255 * (1 - share))
        opaque[start : start + STRIP] = colour
    return opaque


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write `image`, uint8 (H, W, 3) BGR, in the format of the suffix, whole or not at all.

    Raises InputError if that format cannot hold it or the name cannot be had, OutputError if the disk takes nothing more.
    """
    path = Path(path)
    try:
        done, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"{path}: cannot be written as this kind of picture; use .jpg or .png")
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        kind = OutputError if error.errno in LASTING_ERRORS else InputError
        raise kind(f"{path}: cannot be written ({error.strerror}); {FREE_SPACE}") from error
