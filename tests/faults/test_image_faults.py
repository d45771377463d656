"""The table "Images" of docs/errors.md, row by row."""

import json
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.faults.fault_table import (
    ASTRONAUT,
    KINDS,
    FaultTable,
    Run,
    check_faces,
    copy_image,
    drop_rights,
    encoded,
    load_astronaut,
    needs_linux,
    warm_up,
    write,
)
from tests.helpers import EXAMPLES

pytestmark = needs_linux
TABLE = FaultTable("Images")


@TABLE.case("missing")
def missing(folder):
    return Run(["-i", "a.jpg"])


@TABLE.case("empty")
def empty(folder):
    return Run(["-i", write("a.jpg", b"")])


@TABLE.case("cut off at any tenth of its length: JPEG, PNG, WebP, BMP, TIFF, AVIF, HEIC, GIF")
def cut_off(folder):
    whole = {suffix: encoded(kind) for suffix, kind in KINDS.items()} | {"progressive.jpg": encoded("JPEG", progressive=True)}
    whole |= {"avif": encoded("AVIF", speed=10), "heic": heic(), "gif": encoded("GIF")}
    bad = [
        write(f"all/{tenth}.{suffix}", data[: len(data) * tenth // 10])
        for suffix, data in whole.items()
        for tenth in range(1, 10)
    ]
    copy_image("all/good.jpg")
    return Run(["-i", "all"], bad=sorted(bad))


@TABLE.case("of another kind, whatever its name says: text, sound, noise")
def other_kinds(folder):
    data = {
        "text": b"text",
        "sound": b"\0\0\0\x18ftypM4A " + bytes(99),
        "noise": np.random.default_rng(0).bytes(999),
        "stub": b"\xff\xd8\xff",
        "riff": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
    }
    return Run(["-i", "all"], bad=[write(f"all/{name}.jpg", data[name]) for name in sorted(data)])


JPEG_XL = b"\xff\x0a" + bytes(99)


@TABLE.case("JPEG XL (the same, with another command, for JPEG 2000, Photoshop, OpenEXR, Radiance HDR, Netpbm, SVG, PDF)")
def jpeg_xl(folder):
    contained = b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99)
    return [Run(["-i", write("a.jpg", data)]) for data in (JPEG_XL, contained)]


def dng() -> bytes:
    """Return a TIFF file whose first image is marked as the preview of a larger one, as cameras write."""
    return encoded("TIFF", Image.new("RGB", (64, 48)), tiffinfo={254: 1})


@TABLE.case("camera raw: CR2, CR3, NEF, DNG, RAF, ORF, RW2, …, also one that is named .tif")
def camera_raw(folder):
    raw = [
        b"FUJIFILMCCD-RAW 0201" + bytes(99),
        b"IIRO\x08\0\0\0" + bytes(99),
        b"IIU\0\x18\0\0\0" + bytes(99),
        b"II*\0\x10\0\0\0CR\x02\0" + bytes(99),
        b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(99),
        dng(),
        encoded("TIFF", tiffinfo={50706: b"\x01\x04\0\0"}),
    ]
    return [Run(["-i", write("a.jpg", data)]) for data in raw]


@TABLE.case("a video")
def video(folder):
    videos = [b"\0\0\0\x18ftypmp42" + bytes(99), b"\x1aE\xdf\xa3" + bytes(99), b"RIFF\x24\0\0\0AVI LIST" + bytes(99)]
    return [Run(["-i", write("a.jpg", data)]) for data in videos]


@TABLE.case("HEIC, where pillow-heif is not installed")
def heic_without_library(folder, monkeypatch):
    name = write("a.jpg", heic())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    return Run(["-i", name])


@TABLE.case("a folder with files of these kinds: the other images are processed")
def folder_of_other_kinds(folder):
    write("all/a.jxl", JPEG_XL)
    write("all/b", JPEG_XL)
    write("all/c.nef", encoded("TIFF"))
    write("all/d.mp4", b"\0\0\0\x18ftypmp42" + bytes(99))
    write("all/notes.txt", b"BM and other letters")
    write("all/paper.pdf", b"%PDF-1.7")
    copy_image("all/good.jpg")
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_faces(1))


def heic(image: Image.Image | None = None, exif: bytes | None = None) -> bytes:
    """Return an image as a phone writes it: stored as it is, the orientation in EXIF and in the format's own means."""
    import pillow_heif

    buffer, image = BytesIO(), image or load_astronaut()
    pillow_heif.encode("RGB", image.size, image.tobytes(), buffer, exif=exif)
    return buffer.getvalue()


@TABLE.case("a PNG, WebP, BMP or TIFF that is named .jpg, and the reverse")
def wrong_suffix(folder):
    for suffix, kind in KINDS.items():
        write(f"all/{suffix}.jpg" if suffix != "jpg" else "all/jpg.png", encoded(kind))
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_faces(5))


@TABLE.case("AVIF, GIF, HEIC, JFIF; with any suffix, or without one, also in a folder")
def newer_formats(folder):
    data = {"avif": encoded("AVIF", speed=10), "gif": encoded("GIF"), "heic": heic(), "jfif": encoded("JPEG")}
    for suffix, content in data.items():
        for name in (f"a.{suffix}", f"{suffix}_without", f"{suffix}.txt", f"{suffix}.jpg", f"{suffix}.PNG"):
            write(f"all/{name}", content)
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_boxes(20))


@TABLE.case("a JPEG that lacks only its end marker")
def no_end_marker(folder):
    whole = {"baseline": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 1}}
    lacking = [encoded("JPEG", **options)[:-2] for options in whole.values()]
    lacking += [lacking[0] + b"\xff", lacking[0] + bytes(500)]
    return [Run(["-i", write("a.jpg", data), "--jsonl", "o.jsonl"], after=lambda: check_faces(1)) for data in lacking]


@TABLE.case("CMYK, grey, 1 bit, 16 bits, palette, transparent")
def colours(folder):
    image = load_astronaut()
    deep = cv2.imread(str(ASTRONAUT)).astype(np.uint16) * 257
    write("all/cmyk.jpg", encoded("JPEG", image.convert("CMYK")))
    write("all/grey.jpg", encoded("JPEG", image.convert("L")))
    write("all/palette.png", encoded("PNG", image.convert("P", palette=Image.Palette.ADAPTIVE)))
    write("all/transparent.png", encoded("PNG", image.convert("RGBA")))
    write("all/transparent.webp", encoded("WEBP", image.convert("RGBA")))
    write("all/palette_transparent.png", encoded("PNG", image.quantize(255), transparency=0))
    write("all/1_bit.png", encoded("PNG", image.convert("1")))
    write("all/1_bit.tif", encoded("TIFF", image.convert("1"), compression="group4"))
    for suffix in (".png", ".tiff"):
        write(f"all/16_bits{suffix}", cv2.imencode(suffix, deep)[1].tobytes())
        write(f"all/16_bits_grey{suffix}", cv2.imencode(suffix, deep[..., 1])[1].tobytes())
    write("all/cmyk.tif", encoded("TIFF", image.convert("CMYK")))
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_faces(13))


@TABLE.case("animated PNG, WebP or GIF: the first frame is read")
def animated(folder):
    if cv2.__version__ < "4.11":
        pytest.skip("OpenCV before 4.11 refuses animated WebP")
    first = load_astronaut()
    second = Image.new("RGB", first.size)
    for suffix in ("png", "webp"):
        write(f"all/a.{suffix}", encoded(KINDS[suffix], first, save_all=True, append_images=[second]))
    write("all/a.gif", encoded("GIF", first, save_all=True, append_images=[second]))
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_faces(3))


@TABLE.case("1 x 1, 1 x 20000, 20000 x 1")
def thin(folder):
    for height, width in ((1, 1), (1, 20000), (20000, 1)):
        for suffix in ("jpg", "png"):
            write(f"all/{height}_{width}.{suffix}", cv2.imencode(f".{suffix}", np.full((height, width, 3), 90, np.uint8))[1])
    return Run(["-i", "all", "--jsonl", "o.jsonl", "-o", "out"], after=lambda: check_faces(6, faces=0))


@TABLE.case("rotated by EXIF, any of its 8 orientations: it is turned upright")
def turned(folder):
    image = load_astronaut()
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose's numbers, which undo each
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        as_stored = image if orientation == 1 else image.transpose(Image.Transpose(stored[orientation]))
        for suffix in ("jpg", "png", "webp"):
            write(f"all/{orientation}.{suffix}", encoded(KINDS[suffix], as_stored, exif=exif))
        write(f"all/{orientation}.tif", encoded("TIFF", as_stored, tiffinfo={0x0112: orientation}))
        write(f"all/{orientation}.heic", heic(as_stored, exif.tobytes()))
        write(f"all/{orientation}.avif", encoded("AVIF", as_stored, exif=exif, speed=10))  # which takes the tag out of exif
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_boxes(48))


def check_boxes(count: int) -> None:
    boxes = [json.loads(line)["faces"][0]["box"] for line in Path("o.jsonl").read_text().splitlines()]
    assert len(boxes) == count
    np.testing.assert_allclose(boxes, [boxes[0]] * count, atol=8)


@TABLE.case("with corrupt EXIF: it is taken as stored")
def broken_exif(folder):
    whole = ASTRONAUT.read_bytes()
    broken = {
        "noise": b"Exif\0\0" + b"\xff" * 60,
        "cut": b"Exif\0\0II*\0" + struct.pack("<IHHH", 8, 1, 0x0112, 3),
        "nine": b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 9, 0, 0),
        "far": b"Exif\0\0II*\0" + struct.pack("<I", 1 << 30),
        "text": b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, 2, 4, b"six\0", 0),
    }
    for name, exif in broken.items():
        write(f"all/{name}.jpg", whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:])
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_boxes(5))


def png_header(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


@TABLE.case("a decompression bomb: a few bytes that claim 60000 x 60000 pixels")
def bomb(folder):
    idat = b"IDAT" + zlib.compress(bytes(10**6))
    data = png_header(60000, 60000) + struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    jpeg = bytearray(encoded("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60000, 60000)
    bitmap = bytearray(encoded("BMP"))
    bitmap[18:26] = struct.pack("<ii", 60000, 60000)
    bombs = {"a.jpg": bytes(jpeg), "b.png": data, "c.bmp": bytes(bitmap)}
    return Run(["-i", "all"], bad=[write(f"all/{name}", bombs[name]) for name in bombs])


@TABLE.case("larger than --max-pixels 1000")
def max_pixels(folder):
    return Run(["-i", copy_image("a.jpg"), "--max-pixels", "1000"])


@TABLE.case("a JPEG that asks for thousands of passes over it")
def passes(folder):
    data = encoded("JPEG", Image.new("RGB", (8000, 8000)), progressive=True)
    scan = data.rindex(b"\xff\xda")
    return Run(["-i", write("a.jpg", data[:scan] + data[scan:-2] * 2000 + data[-2:])])


@TABLE.case("more faces than --max-faces 3: the most confident are kept")
def max_faces(folder):
    shutil.copy(EXAMPLES / "people.jpg", "a.jpg")
    return Run(["-i", "a.jpg", "--max-faces", "3", "--jsonl", "o.jsonl"], after=lambda: check_faces(1, faces=3))


@TABLE.case("names with spaces, quotes, line feeds, terminal codes, Unicode, bytes that are not UTF-8")
def names(folder):
    odd = [b"sp ace", b"q'u\"o", b"line\nfeed", b"\x1b[31mred", "ü 😷".encode(), b"caf\xe9", b"-i"]
    for name in odd:
        shutil.copy(ASTRONAUT, os.path.join(os.fsencode(folder), name + b".jpg"))

    def check() -> None:
        images = {json.loads(line)["image"] for line in Path("o.jsonl").read_text().splitlines()}
        assert images == {os.fsdecode(b"./" + name + b".jpg").removeprefix("./") for name in odd}

    return Run(["-i", ".", "--jsonl", "o.jsonl", "--csv", "o.csv"], after=check)


@TABLE.case("a link to itself")
def link_loop(folder):
    Path("a.jpg").symlink_to("a.jpg")
    return Run(["-i", "a.jpg"])


@TABLE.case("a folder with links in a circle: each image is read once")
def folder_loop(folder):
    Path("all/sub").mkdir(parents=True)
    copy_image("all/sub/a.jpg")
    for number in range(3):
        Path(f"all/sub/{number}").symlink_to("..")
    return [Run(["-i", source, "--jsonl", "o.jsonl"], after=lambda: check_faces(1)) for source in ("all", "all/**/*.jpg")]


@TABLE.case("a FIFO, device or folder in place of an image")
def fifo(folder):
    os.mkfifo("a.jpg")
    runs = [Run(["-i", "a.jpg"])]
    Path("all").mkdir()
    os.mkfifo("all/a.jpg")
    Path("all/b.jpg").symlink_to("/dev/zero")
    copy_image("all/good.jpg")
    return [*runs, Run(["-i", "all"], bad=["all/a.jpg", "all/b.jpg"])]


@TABLE.case("removed during the run")
def vanishes(folder, monkeypatch):
    monkeypatch.setattr("facemask.parallel.thread_budget", lambda: (1, 1))
    for name in "abc":
        copy_image(f"{name}.jpg")
    monkeypatch.setattr("facemask.io.records.skip_results", lambda paths, output: Path("b.jpg").unlink() or paths)
    return Run(["-i", "a.jpg", "b.jpg", "c.jpg"])


def once_opened(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Have something happen to an image between the moment its size is taken and the reading."""
    real = os.fstat

    def fstat(number: int) -> os.stat_result:
        status = real(number)
        change()
        return status

    monkeypatch.setattr("facemask.io.images.os.fstat", fstat)


@TABLE.case("cut while it is read")
def shrinks(folder, monkeypatch):
    copy_image("a.jpg")
    once_opened(monkeypatch, lambda: os.truncate("a.jpg", 9999))
    return Run(["-i", "a.jpg"])


@TABLE.case("growing while it is read: the size at the start counts")
def grows(folder, monkeypatch):
    copy_image("a.jpg")

    def add() -> None:
        with open("a.jpg", "ab") as file:
            file.write(bytes(9999))

    once_opened(monkeypatch, add)
    return Run(["-i", "a.jpg", "--jsonl", "o.jsonl"], after=lambda: check_faces(1))


@TABLE.case("without permission to read it")
def closed_file(folder):
    os.chmod(copy_image("a.jpg"), 0)
    warm_up()
    drop_rights()
    return Run(["-i", "a.jpg"])


@TABLE.case("a folder with a subfolder without permission: the other images are processed")
def closed_folder(folder):
    put_image_in_closed_folder()
    copy_image("all/b.jpg")
    warm_up()
    drop_rights()
    return Run(["-i", "all"])


def put_image_in_closed_folder() -> None:
    Path("all/sub").mkdir(parents=True)
    copy_image("all/sub/a.jpg")
    os.chmod("all/sub", 0)


@TABLE.case("a folder without images")
def no_images(folder):
    write("all/notes.txt", b"")
    return Run(["-i", "all"])


@TABLE.case("a folder with none that is read")
def only_other_kinds(folder):
    write("all/a.jxl", JPEG_XL)
    return Run(["-i", "all"])


@TABLE.case("a pattern that nothing matches")
def no_match(folder):
    return Run(["-i", "*.png"])


def test_each_row_has_a_case_and_each_case_a_row():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
