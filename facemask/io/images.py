"""Read and write image files."""

import errno
import logging
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Sequence
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
from facemask.io import kinds
from facemask.io.kinds import Kind
from facemask.io.outputs import FREE_SPACE, atomic_path

GIVE = "give a JPEG, PNG, WebP, BMP or TIFF file"
NOT_AN_IMAGE = f"not a supported image, or corrupt; {GIVE}"
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)  # of a JPEG, within the image data; ITU-T T.81, annex B
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
REDUCED_FLAGS = {
    1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8
}  # fmt: skip
MAX_EXIF = 1 << 20  # bytes
MAX_CHUNKS = 10_000  # of a PNG, before the image data
ORIENTATION = 0x0112  # EXIF's tag; 1..8
FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # cv2.flip's code by EXIF's orientation; 5 to 8 are transposed before
MAX_PIXELS = 250_000_000  # of an image, by default: phones make 200 million
MAX_SCANNED = 2.5e9  # pixels times scans: a progressive JPEG usually has ten scans, and may have thousands
LARGE_PIXELS, LARGE_BYTES = 1 << 25, 1 << 26  # of an image from which it is processed alone
FATAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)  # the next image would fail with them too
STRIP = 256  # rows blended at once: bounds the memory
MAX_FILE = 1 << 30  # bytes
JPEG_END = b"\xff\xd9"
DNG_VERSION, PHOTOMETRIC, SUBFILE_TYPE = 50706, 262, 254  # tags of TIFF and DNG
COLOUR_FILTER_ARRAY = 32803  # of PHOTOMETRIC: the sensor's own pixels

logger = logging.getLogger(__name__)


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image as uint8 (H, W, 3) BGR, upright by its EXIF, transparent parts on white, 16 bits cut to 8.

    Of an animation the first frame is read. Raises InputError as `EncodedImage.read` and `decode`.
    """
    return EncodedImage.read(path, max_pixels).decode()


@dataclass(frozen=True)
class EncodedImage:
    """An image file, read and not yet decoded: Pillow reads its header, OpenCV decodes it in half of Pillow's time."""

    path: str | Path  # as messages name it
    data: bytes  # all of the file
    width: int  # px, upright
    height: int
    header: "Header"
    has_end: bool  # False for a truncated JPEG

    @classmethod
    def read(cls, path: str | Path, max_pixels: int = MAX_PIXELS) -> "EncodedImage":
        """Read a file. Raises InputError if it is missing, empty, not a supported image, or of more than `max_pixels`."""
        path = Path(path)
        with _open(path) as file:
            try:
                data = file.read(os.fstat(file.fileno()).st_size)  # its size when opened: it may grow endlessly
            except OSError as error:  # a failing disk or card
                raise InputError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
        return cls.parse(path, data, max_pixels)

    @classmethod
    def parse(cls, path: str | Path, data: bytes, max_pixels: int = MAX_PIXELS) -> "EncodedImage":
        """Take the content of a file, which messages call `path`, also a URL. Raises InputError as `read` does."""
        if not data:
            raise InputError(f"{path}: the file is empty; copy it again")
        header = Header.read(path, BytesIO(data))
        width, height = header.width, header.height
        if width * height > max_pixels:
            raise InputError(
                f"{path}: {width} x {height} pixels are more than {max_pixels}; make it smaller, or raise --max-pixels"
            )
        scans, has_end = (1, True) if header.first_scan is None else _count_scans(data, header.first_scan)
        if width * height * scans > MAX_SCANNED and scans > 1:
            raise InputError(f"{path}: a JPEG with too many scans; save it again")
        if not has_end and (whole := _with_end(data, width * height)):
            logger.warning("%s: only the end marker of this JPEG is missing; it is read", path)
            data, has_end = whole, True
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

        Raises InputError if it is corrupt.
        """
        corrupt = InputError(f"{self.path}: {NOT_AN_IMAGE}")
        # OpenCV before 4.11 decodes truncated JPEGs, and leaves the rest grey.
        if not self.has_end:
            raise corrupt
        try:
            image = self.header.decode(self.data) if self.header.decode else self._decode_by_opencv(scale)
        except Exception as error:  # as in Header.read
            raise corrupt from error
        if image is None or image.dtype not in (np.uint8, np.uint16):
            raise corrupt
        if image.dtype == np.uint16:
            image = np.ascontiguousarray(image.astype("<u2", copy=False).view(np.uint8)[..., 1::2])  # the upper bytes
        if image.ndim == 2 or image.shape[2] == 1:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        if image.shape[2] == 4:
            image = _on_white(image)
        image = _turn(image, self.header.orientation)
        if image.shape != (-(-self.height // scale), -(-self.width // scale), 3):
            raise corrupt  # the two libraries disagree about the size
        return image

    def _decode_by_opencv(self, scale: int) -> np.ndarray | None:
        flags = cv2.IMREAD_UNCHANGED if self.header.has_alpha else REDUCED_FLAGS[scale]
        return cv2.imdecode(np.frombuffer(self.data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)


def _with_end(data: bytes, pixels: int) -> bytes | None:
    """Return a JPEG of that many pixels with the end marker that it lacks; None if more than that is missing.

    Then what follows the last pixels does not matter: it decodes to the same image with other bytes there.
    """
    data = data.removesuffix(b"\xff")
    flags = cv2.IMREAD_REDUCED_COLOR_8 if pixels > LARGE_PIXELS else cv2.IMREAD_COLOR
    sums = []
    for more in (b"", bytes(range(1, 255)) * 4):  # one after the other: each may take as much memory as the image
        try:
            image = cv2.imdecode(np.frombuffer(data + more + JPEG_END, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        except (cv2.error, MemoryError):
            return None
        if image is None:
            return None
        sums.append(zlib.crc32(image))
        del image
    return data + JPEG_END if sums[0] == sums[1] else None


def _count_scans(data: bytes, first_scan: int) -> tuple[int, bool]:
    """Return the number of scans of a JPEG, and whether it has an end; the data of the first begin at `first_scan`."""
    scans, at = 1, first_scan
    while (marker := MARKER.search(data, at)) and marker[1][0] != END_OF_IMAGE:
        scans += marker[1][0] == START_OF_SCAN
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans, marker is not None


def is_large(path: Path) -> bool:
    """Return whether an image is so large that several of its kind would take too much memory; False if it is not one."""
    with suppress(InputError), _open(path) as file:
        if os.fstat(file.fileno()).st_size > LARGE_BYTES:
            return True
        header = Header.read(path, file)
        return header.width * header.height > LARGE_PIXELS
    return False


def image_size(path: str | Path) -> tuple[int, int]:
    """Return width and height of an image, upright, in pixels, from its header. Raises InputError as `EncodedImage.read`."""
    path = Path(path)
    with _open(path) as file:
        header = Header.read(path, file)
    return (header.height, header.width) if header.orientation >= 5 else (header.width, header.height)


def _open(path: Path) -> BinaryIO:
    """Open a regular file to read it. Raises InputError if it is not one, or too large."""
    try:
        file = open(path, "rb", opener=kinds.open_nonblocking)  # noqa: SIM115
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "check your rights" if isinstance(error, PermissionError) else "check the name"
        raise InputError(f"{path}: cannot be read ({reason}); {remedy}") from error
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise InputError(f"{path}: not a regular file; {GIVE}")
    if status.st_size > MAX_FILE:
        file.close()
        raise InputError(f"{path}: {status.st_size / 1e9:.1f} GB are too many for an image; make it smaller")
    return file


@dataclass(frozen=True)
class Header:
    """The header of an image file."""

    width: int  # px, as stored
    height: int
    orientation: int = 1  # 1..8, how the decoded image must be turned (EXIF 2.32, 4.6.4)
    has_alpha: bool = False
    first_scan: int | None = None  # byte at which the data of a JPEG's first scan begin; None for other formats
    # Decodes the bytes of a file to uint8 (H, W), (H, W, 3) BGR or (H, W, 4) BGRA; None: OpenCV does.
    decode: Callable[[bytes], np.ndarray] | None = None

    @classmethod
    def read(cls, path: str | Path, file: BinaryIO) -> "Header":
        """Read it from a file that is open at its beginning. Raises InputError if it is not one of the known formats."""
        kind = None
        try:
            kind = kinds.identify(file.read(kinds.START), Path(path).suffix)
            file.seek(0)
            header = FORMATS[kind](file) if kind in FORMATS else None
        except _CameraRaw as error:
            raise InputError(kinds.CAMERA_RAW.refusal(path)) from error
        except ImportError as error:
            raise InputError(kinds.HEIC.refusal(path)) from error
        except Exception as error:  # Pillow and struct raise many types for corrupt files
            raise InputError(f"{path}: {NOT_AN_IMAGE}") from error
        if kind and not kind.is_read:
            raise InputError(kind.refusal(path))
        if header is None or min(header.width, header.height) < 1:
            raise InputError(f"{path}: {NOT_AN_IMAGE}")
        return header

    @classmethod
    def by_pillow(cls, plugin: type[ImageFile], file: BinaryIO) -> "Header":
        """Read it with Pillow's class of that format, which decodes nothing. Raises what Pillow does, or _CameraRaw.

        Image.open would do the same, but refuses images of more than 179 megapixels unless a setting of the whole
        process is changed.
        """
        image = plugin(file)
        if isinstance(image, TiffImageFile) and _is_camera_raw(image):
            raise _CameraRaw
        has_alpha = plugin is not BmpImageFile and ("A" in image.mode or "transparency" in image.info)
        first_scan = file.tell() if plugin is JpegImageFile else None
        return cls(*image.size, _orientation(image.info.get("exif", b"")), has_alpha, first_scan)

    @classmethod
    def of_gif(cls, file: BinaryIO) -> "Header":
        """Read it with Pillow, which decodes the first frame too: OpenCV reads GIF only since 4.11."""
        from PIL.GifImagePlugin import GifImageFile

        width, height = GifImageFile(file).size
        return cls(width, height, decode=partial(_decode_by_pillow, GifImageFile))

    @classmethod
    def of_avif(cls, file: BinaryIO) -> "Header":
        """Read it with Pillow, which decodes it too, and makes one orientation of EXIF's and the format's own."""
        from PIL.AvifImagePlugin import AvifImageFile

        image = AvifImageFile(file)
        return cls(*image.size, _orientation(image.info.get("exif", b"")), decode=partial(_decode_by_pillow, AvifImageFile))

    @classmethod
    def of_heic(cls, file: BinaryIO) -> "Header":
        """Read it with pillow-heif, which turns the image upright by the format's own means: EXIF's orientation is not used."""
        from pillow_heif import open_heif

        width, height = open_heif(file).size
        return cls(width, height, decode=_decode_heic)

    @classmethod
    def of_png(cls, file: BinaryIO) -> "Header":
        """Read the chunks of a PNG up to the image data.

        Pillow refuses a whole PNG for an error in a comment, or for a compressed comment of more than a megabyte.
        """
        file.seek(8)
        width = height = colour = 0
        orientation, has_alpha = 1, False
        for _ in range(MAX_CHUNKS):
            head = file.read(8)
            kind = head[4:]
            if not head or kind == b"IDAT":
                return cls(width, height, orientation, has_alpha)
            length = int.from_bytes(head[:4], "big")
            if kind == b"IHDR":
                width, height, _, colour = struct.unpack(">IIBB", file.read(10))
                length -= 10
            elif kind == b"eXIf" and length < MAX_EXIF:
                orientation = _orientation(b"Exif\0\0" + file.read(length))
                length = 0
            has_alpha |= kind == b"tRNS" or colour in (4, 6)
            file.seek(length + 4, os.SEEK_CUR)
        raise ValueError("too many chunks")


def _orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1..8; 1, upright, if it is missing or wrong."""
    tags = Image.Exif()
    with suppress(Exception):  # as in Header.read
        tags.load(exif)
        if tags.get(ORIENTATION) in range(1, 9):
            return int(tags[ORIENTATION])
    return 1


class _CameraRaw(Exception):
    """A TIFF file is a camera's: its first image is a small preview, or the sensor's own pixels."""


def _is_camera_raw(image: TiffImageFile) -> bool:
    tags = image.tag_v2
    is_preview = bool(tags.get(SUBFILE_TYPE, 0) & 1)
    return is_preview or DNG_VERSION in tags or tags.get(PHOTOMETRIC) == COLOUR_FILTER_ARRAY


def _decode_by_pillow(plugin: type[ImageFile], data: bytes) -> np.ndarray:
    """Decode an image, the first of several, to uint8 (H, W, 3) BGR or (H, W, 4) BGRA. Raises what Pillow does."""
    image = plugin(BytesIO(data))
    has_alpha = "A" in image.mode or "transparency" in image.info
    pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    return cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if has_alpha else cv2.COLOR_RGB2BGR)


def _decode_heic(data: bytes) -> np.ndarray:
    """Decode an image to uint8 (H, W), (H, W, 3) BGR or (H, W, 4) BGRA. Raises what pillow-heif does."""
    from pillow_heif import open_heif

    pixels = np.array(open_heif(data, bgr_mode=True))
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # grey levels and alpha
        pixels = pixels[..., (0, 0, 0, 1)]
    return pixels


# The formats that are read. OpenCV decodes many more, which are little tested.
FORMATS: dict[Kind | None, Callable[[BinaryIO], Header]] = {
    kinds.JPEG: partial(Header.by_pillow, JpegImageFile),
    kinds.PNG: Header.of_png,
    kinds.WEBP: partial(Header.by_pillow, WebPImageFile),
    kinds.BMP: partial(Header.by_pillow, BmpImageFile),
    kinds.TIFF: partial(Header.by_pillow, TiffImageFile),
    kinds.GIF: Header.of_gif,
    kinds.AVIF: Header.of_avif,
    kinds.HEIC: Header.of_heic,
}


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = cv2.transpose(image)
    return cv2.flip(image, FLIPS[orientation]) if orientation in FLIPS else image


def _on_white(image: np.ndarray) -> np.ndarray:
    """Blend `image`, uint8 (H, W, 4) BGR and alpha, with white; returns uint8 (H, W, 3)."""
    opaque = np.empty((*image.shape[:2], 3), np.uint8)
    for start in range(0, len(image), STRIP):
        strip = image[start : start + STRIP]
        colour, alpha = cv2.cvtColor(strip, cv2.COLOR_BGRA2BGR), strip[..., 3:]
        if alpha.min() < 255:
            opacity = alpha.astype(np.float32) / 255
            colour = np.rint(colour * opacity + 255 * (1 - opacity))
        opaque[start : start + STRIP] = colour
    return opaque


def encode_image(image: np.ndarray, suffix: str, options: Sequence[int] = ()) -> bytes | None:
    """Return `image`, uint8 (H, W, 3) BGR, in the format of a suffix, as ".jpg"; None if this format cannot hold it.

    `options` are OpenCV's, as `cv2.imwrite` takes them.
    """
    try:
        is_encoded, data = cv2.imencode(suffix, image, options)
    except cv2.error:
        return None
    return data.tobytes() if is_encoded else None


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write `image`, uint8 (H, W, 3) BGR, in the format of the suffix, whole or not at all.

    Raises InputError if this format cannot hold it or the name cannot be written, OutputError if the disk is full or
    fails.
    """
    path = Path(path)
    data = encode_image(image, path.suffix)
    if data is None:
        raise InputError(f"{path}: cannot be written in this format; use .jpg or .png")
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        kind = OutputError if error.errno in FATAL_ERRORS else InputError
        raise kind(f"{path}: cannot be written ({error.strerror}); {FREE_SPACE}") from error
