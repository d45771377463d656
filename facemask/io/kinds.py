"""The kinds of files that lie among images, told apart by their first bytes, and how to convert those that are not read.

This module imports no image library, so that it costs nothing at the start.
"""

import os
import shlex
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

START = 512  # bytes that `identify` needs
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef",
    ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
# Of the videos of a folder; a file that is named itself may have any suffix.
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".ogg", ".gif",
    ".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".dv", ".y4m", ".h264", ".264", ".h265", ".hevc", ".mjpeg",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of file. `remedy` says what to do if it is not read: "{input}" is the file's name, "{name}" without suffix."""

    name: str
    remedy: str = ""
    is_read: bool = False  # as an image
    is_counted: bool = True  # among the files of a folder that are not read

    def refusal(self, path: str | Path) -> str:
        """Return why a file of this kind is not read, and what to do."""
        name = Path(path)
        remedy = self.remedy.format(input=shlex.quote(name.name), name=shlex.quote(name.stem))
        return f"{path}: {self.name} files are not read; {remedy}"


JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF = (
    Kind(name, is_read=True) for name in ("JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "AVIF")
)
HEIC = Kind("HEIC", "pip install pillow-heif, or convert it: heif-convert {input} {name}.jpg", is_read=True)
JPEG_XL = Kind("JPEG XL", "convert it: djxl {input} {name}.png")
JPEG_2000 = Kind("JPEG 2000", "convert it: magick {input} {name}.png")
CAMERA_RAW = Kind("camera raw", "develop it: darktable-cli {input} {name}.jpg")
VIDEO = Kind("video", "run detect_mask_video.py -i {input}")
PHOTOSHOP = Kind("Photoshop", "convert it: magick {input}[0] {name}.png")
OPEN_EXR = Kind("OpenEXR", "convert it: magick {input} {name}.png")
RADIANCE = Kind("Radiance HDR", "convert it: magick {input} {name}.png")
NETPBM = Kind("Netpbm", "convert it: magick {input} {name}.png")
SVG = Kind("SVG", "convert it: rsvg-convert {input} -o {name}.png")
ICON = Kind("Windows icon", "convert it: magick {input} {name}.png", is_counted=False)
PDF = Kind("PDF", "convert it: pdftoppm -png {input} {name}", is_counted=False)
WEB_PAGE = Kind("HTML", "give the address or file of the image itself", is_counted=False)

SIGNATURES: dict[bytes, Kind] = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": PNG,
    b"GIF87a": GIF,
    b"GIF89a": GIF,
    b"FUJIFILMCCD-RAW": CAMERA_RAW,
    b"IIRO": CAMERA_RAW,  # Olympus
    b"IIRS": CAMERA_RAW,
    b"MMOR": CAMERA_RAW,
    b"IIU\0": CAMERA_RAW,  # Panasonic
    b"FOVb": CAMERA_RAW,  # Sigma
    b"\0MRM": CAMERA_RAW,  # Minolta
    b"II\x1a\0\0\0HEAPCCDR": CAMERA_RAW,  # Canon, before 2004
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,
    b"MM\0+": TIFF,
    b"\xff\x0a": JPEG_XL,
    b"\0\0\0\x0cJXL \r\n\x87\n": JPEG_XL,
    b"\0\0\0\x0cjP  \r\n\x87\n": JPEG_2000,
    b"\xff\x4f\xff\x51": JPEG_2000,
    b"8BPS": PHOTOSHOP,
    b"v/1\x01": OPEN_EXR,
    b"#?RADIANCE": RADIANCE,
    b"#?RGBE": RADIANCE,
    b"\0\0\x01\0": ICON,
    b"%PDF-": PDF,
    b"\x1aE\xdf\xa3": VIDEO,  # Matroska, WebM
    b"FLV\x01": VIDEO,
    b"OggS": VIDEO,
    b"\0\0\x01\xba": VIDEO,  # MPEG
    b"\0\0\x01\xb3": VIDEO,
    b"<svg": SVG,
}
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes of the header that follows a BMP's first 14
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"), HEIC),
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    b"crx ": CAMERA_RAW,  # Canon, since 2018
}


def identify(start: bytes, suffix: str = "") -> Kind | None:
    """Return the kind of a file by its first `START` bytes, whatever it is called; None for one that is none of them.

    The suffix, as ".nef", decides only where the bytes do not: most camera raw files are TIFF files.
    """
    kind = _by_content(start)
    if kind in (TIFF, None) and (suffix.lower() in RAW_SUFFIXES or (kind is TIFF and start[8:10] == b"CR")):
        return CAMERA_RAW
    return kind


def _by_content(start: bytes) -> Kind | None:
    for signature, kind in SIGNATURES.items():
        if start.startswith(signature):
            return kind
    if start[4:8] == b"ftyp":
        return _by_brands(start)
    if start[4:8] in (b"moov", b"mdat", b"wide"):  # QuickTime, before 2001
        return VIDEO
    if start[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"AVI ": VIDEO}.get(start[8:12])
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in BMP_HEADERS:  # "BM" alone may begin a text
        return BMP
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3] in b" \t\r\n":
        return NETPBM
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return WEB_PAGE
    return SVG if text.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text else None


def _by_brands(start: bytes) -> Kind | None:
    """Return the kind of an ISO base media file (ISO/IEC 14496-12), by its brands; HEIF's own brands say little."""
    end = min(int.from_bytes(start[:4], "big"), len(start))
    brands = [start[8:12], *(start[at : at + 4] for at in range(16, end - 3, 4))]
    if brands[0] in BRANDS:
        return BRANDS[brands[0]]
    if brands[0] in (b"mif1", b"msf1", b"mif2", b"miaf"):
        return next((BRANDS[brand] for brand in brands if brand in BRANDS), HEIC)
    return None if brands[0].startswith((b"M4A", b"M4B")) else VIDEO  # sound alone


def open_nonblocking(name: str, flags: int) -> int:
    """Open a file, as `open`'s opener: a FIFO does not wait for a writer, maybe endlessly."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def identify_file(path: Path) -> Kind | None:
    """Return the kind of a regular file, as `identify` does; None if it cannot be read."""
    with suppress(OSError, ValueError), open(path, "rb", buffering=0, opener=open_nonblocking) as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return identify(file.read(START), path.suffix)
    return None


def can_read_heic() -> bool:
    """Return whether pillow-heif is installed, without importing it."""
    from importlib.util import find_spec

    return find_spec("pillow_heif") is not None
