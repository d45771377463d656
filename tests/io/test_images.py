import os
import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest

from facemask.errors import InputError
from facemask.io.find_images import find_images
from facemask.io.images import EncodedImage, is_large, read_image, write_image
from facemask.video.display import has_display, screen_size, show_image, window_size
from tests.helpers import EXAMPLES

# Four corners of different grey, so that each orientation differs.
CORNERS = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 24), np.uint8))


def jpeg_with_orientation(orientation: int, image: np.ndarray = CORNERS) -> bytes:
    """Return a JPEG with an orientation in its EXIF data (TIFF tag 0x0112)."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


UPRIGHT = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.T,
    6: np.rot90(CORNERS, -1),
    7: CORNERS[::-1, ::-1].T,
    8: np.rot90(CORNERS),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_read_image_is_upright_by_exif(tmp_path, orientation):
    (tmp_path / "a.jpg").write_bytes(jpeg_with_orientation(orientation))
    image = read_image(tmp_path / "a.jpg")
    expected = UPRIGHT[orientation]
    assert image.shape == (*expected.shape, 3)
    assert np.abs(image[..., 0].astype(int) - expected).mean() < 3


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("width", "height", "scale"),
    [
        pytest.param(3839, 64, 1, id="just too small"),
        pytest.param(3840, 65, 2, id="half"),
        pytest.param(7681, 70, 4, id="quarter"),
        pytest.param(70, 15363, 8, id="eighth, tall"),
        pytest.param(4000, 3999, 2, id="nearly square"),
        pytest.param(4000, 4000, 2, id="square"),
    ],
)
def test_decode_reduced(tmp_path, orientation, width, height, scale):
    (tmp_path / "a.jpg").write_bytes(jpeg_with_orientation(orientation, cv2.resize(CORNERS, (width, height))))
    encoded = EncodedImage.read(tmp_path / "a.jpg")
    whole, reduced = encoded.decode(), encoded.decode(scale)
    assert (encoded.height, encoded.width) == whole.shape[:2]
    assert encoded.decode_scale(min_side=1920) == scale
    rows, columns = -(-encoded.height // scale), -(-encoded.width // scale)
    assert reduced.shape == (rows, columns, 3)
    assert np.abs(reduced.astype(int) - cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)).mean() < 3


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
def test_other_formats_are_not_reduced(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), cv2.resize(CORNERS, (4000, 50)))
    encoded = EncodedImage.read(tmp_path / name)
    assert (encoded.width, encoded.height, encoded.decode_scale(1920)) == (4000, 50, 1)


def test_decode_reduced_cut_jpeg(tmp_path):
    whole = jpeg_with_orientation(1, cv2.resize(CORNERS, (4000, 500)))
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a supported image, or corrupt"):
        EncodedImage.read(tmp_path / "a.jpg").decode(2)


GREY = np.full((4, 6), 100, np.uint8)
BGRA = np.dstack([GREY, GREY, GREY, np.array([[255] * 3 + [0] * 3] * 4, np.uint8)])
DEEP = np.full((4, 6, 3), 100 * 257, np.uint16)


@pytest.mark.parametrize(
    ("name", "stored", "left", "right"),
    [
        pytest.param("grey.png", GREY, 100, 100, id="grey"),
        pytest.param("deep.png", DEEP, 100, 100, id="16 bit"),
        pytest.param("deep.tiff", DEEP, 100, 100, id="16 bit TIFF"),
        pytest.param("alpha.png", BGRA, 100, 255, id="alpha on white"),
        pytest.param("deep_alpha.png", BGRA.astype(np.uint16) * 257, 100, 255, id="16 bit alpha"),
        pytest.param("colour.bmp", BGRA[..., :3], 100, 100, id="BMP"),
        pytest.param("sp ace 'q' ü.png", GREY, 100, 100, id="odd name"),
    ],
)
def test_read_image_formats(tmp_path, name, stored, left, right):
    (tmp_path / name).write_bytes(cv2.imencode(Path(name).suffix, stored)[1])
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.shape == (4, 6, 3)
    assert (image[:, :3] == left).all() and (image[:, 3:] == right).all()


@pytest.mark.parametrize("tenths", range(1, 10))
def test_read_image_cut_jpeg(tmp_path, tenths):
    whole = (EXAMPLES / "astronaut.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) * tenths // 10])
    with pytest.raises(InputError, match="not a supported image, or corrupt"):
        read_image(tmp_path / "a.jpg")


def test_read_image_jpeg_with_data_behind_its_end(tmp_path, astronaut):
    (tmp_path / "a.jpg").write_bytes((EXAMPLES / "astronaut.jpg").read_bytes() + b"\xff\xda a phone's video")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), astronaut)


def test_read_image_turned_by_exif_and_transparent(tmp_path):
    """The transparent parts are turned with the rest."""
    alpha = np.array([[255] * 24 + [0] * 24] * 32, np.uint8)
    data = cv2.imencode(".png", np.dstack([CORNERS] * 3 + [alpha]))[1].tobytes()
    chunk = b"eXIf" + b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 3, 0, 0)
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])  # after the header
    opaque = np.where(alpha == 255, CORNERS, 255)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], opaque[::-1, ::-1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(None, "cannot be read (No such file or directory); check the name", id="missing"),
        pytest.param(b"", "the file is empty; copy it again", id="empty"),
        pytest.param(b"text", "not a supported image, or corrupt; give a JPEG, PNG, WebP, BMP or TIFF file", id="text"),
        pytest.param(b"\xff\xd8\xff", "not a supported image, or corrupt; give a JPEG, PNG, WebP, BMP or TIFF file", id="stub"),
    ],
)
def test_read_image_bad_file(tmp_path, data, message):
    if data is not None:
        (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "a.jpg")
    assert str(error.value) == f"{tmp_path / 'a.jpg'}: {message}"


def test_read_image_too_large(tmp_path):
    header = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "bomb.bmp").write_bytes(header + bytes(100))
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "bomb.bmp")
    assert str(error.value) == (
        f"{tmp_path}/bomb.bmp: 60000 x 60000 pixels are more than 250000000; make it smaller, or raise --max-pixels"
    )


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c d.webp", "._b.jpg", ".thumbnails/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        pytest.param([""], ["a.PNG", "b.jpg", "sub/c d.webp"], id="folder"),
        pytest.param(["b.jpg"], ["b.jpg"], id="file"),
        pytest.param(["*.jpg"], ["b.jpg"], id="glob"),
        pytest.param(["b.jpg", "", "*.jpg"], ["b.jpg", "a.PNG", "sub/c d.webp"], id="each once"),
        pytest.param(["._b.jpg", ".thumbnails"], ["._b.jpg", ".thumbnails/b.jpg"], id="hidden, if named"),
        pytest.param(["none.jpg"], ["none.jpg"], id="missing, said when read"),
    ],
)
def test_find_images(folder, sources, names):
    assert find_images([str(folder / source) for source in sources]) == [folder / name for name in names]


@pytest.mark.parametrize(("source", "message"), [("*.bmp", "no file matches"), ("empty", "no images in this folder")])
def test_find_images_finds_none(folder, source, message):
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        find_images([str(folder / source)])


def test_write_image(tmp_path, astronaut):
    write_image(tmp_path / "a.png", astronaut)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), astronaut)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["a.xyz", "a"])
def test_write_image_unknown_suffix(tmp_path, astronaut, name):
    with pytest.raises(InputError, match=r"cannot be written in this format; use .jpg or .png"):
        write_image(tmp_path / name, astronaut)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux uses these variables")
def test_has_display_without_one(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not has_display()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux uses these variables")
def test_has_display_that_does_not_answer(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4242")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not has_display()


def test_max_pixels(tmp_path, astronaut):
    cv2.imwrite(str(tmp_path / "a.png"), astronaut)  # 380 x 400
    assert read_image(tmp_path / "a.png", max_pixels=152_000).shape == (400, 380, 3)
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "a.png", max_pixels=151_999)
    assert str(error.value) == (
        f"{tmp_path}/a.png: 380 x 400 pixels are more than 151999; make it smaller, or raise --max-pixels"
    )


@pytest.mark.parametrize(
    ("side", "name", "large"),
    [
        pytest.param(5792, "a.jpg", False, id="33.5 million pixels"),
        pytest.param(5800, "a.jpg", True, id="33.6 million pixels"),
        pytest.param(5800, "a.png", True, id="PNG"),
        pytest.param(10, "a.jpg", False, id="small"),
    ],
)
def test_is_large(tmp_path, side, name, large):
    cv2.imwrite(str(tmp_path / name), np.zeros((side, side), np.uint8))
    assert is_large(tmp_path / name) is large


def test_is_large_of_a_large_file_and_of_no_image(tmp_path):
    with open(tmp_path / "long.jpg", "wb") as file:
        file.truncate((1 << 26) + 1)
    (tmp_path / "text.jpg").write_text("text")
    assert [is_large(tmp_path / name) for name in ("long.jpg", "text.jpg", "none.jpg")] == [True, False, False]


def test_each_file_is_read_once(tmp_path, astronaut, monkeypatch):
    """Both decodings, reduced and whole, are of the same data, also if the file changes meanwhile."""
    cv2.imwrite(str(tmp_path / "a.jpg"), cv2.resize(astronaut, None, fx=12, fy=12))
    encoded = EncodedImage.read(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").unlink()
    assert encoded.decode(2).shape == (2400, 2280, 3) and encoded.decode().shape == (4800, 4560, 3)


def png_with(kind: bytes, content: bytes, image: np.ndarray, checksum: int | None = None) -> bytes:
    """Return a PNG with a chunk before the image data."""
    data = cv2.imencode(".png", image)[1].tobytes()
    chunk = kind + content
    summed = zlib.crc32(chunk) if checksum is None else checksum
    return data[:33] + struct.pack(">I", len(content)) + chunk + struct.pack(">I", summed) + data[33:]


@pytest.mark.parametrize(
    ("kind", "content", "checksum"),
    [
        pytest.param(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(5 << 20)), None, id="5 MB of text in a few bytes"),
        pytest.param(b"tEXt", b"prompt\0" + bytes(2 << 20), None, id="2 MB of text"),
        pytest.param(b"tEXt", b"a\0b", 7, id="wrong checksum of a comment"),
        pytest.param(b"pHYs", b"ab", None, id="short"),
    ],
)
def test_read_image_ignores_comments_in_a_png(tmp_path, astronaut, kind, content, checksum):
    (tmp_path / "a.png").write_bytes(png_with(kind, content, astronaut, checksum))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), astronaut)


def test_read_image_from_a_failing_card(tmp_path, monkeypatch):
    class Broken(BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

        def fileno(self):
            return os.open(tmp_path, os.O_RDONLY)

    monkeypatch.setattr("facemask.io.images._open", lambda path: Broken())
    with pytest.raises(InputError) as error:
        read_image("a.jpg")
    assert str(error.value) == "a.jpg: cannot be read (Input/output error); copy it again"
    assert not is_large("a.jpg")


def test_find_images_in_folders_too_deep(tmp_path, monkeypatch):
    def walk(*_, **__):
        raise RecursionError  # Python 3.11's, some thousand folders deep

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(InputError) as error:
        find_images([str(tmp_path)])
    assert str(error.value) == f"{tmp_path}: its folders are nested too deep; give those below it"


def jpeg_with_scans(count: int, between: bytes = b"") -> bytes:
    data = EncodedImage.read(EXAMPLES / "people.jpg").data
    whole = cv2.imencode(".jpg", cv2.imdecode(np.frombuffer(data, np.uint8), 1), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + between + whole[last:-2] * count + whole[-2:]


@pytest.mark.parametrize("between", [b"", b"\xff\xfe\0\x04\xff\xd9", b"\xff\xff\xff\xfe\0\x02"])
def test_jpeg_with_too_many_scans(tmp_path, between):
    """An end of image within a comment does not count."""
    (tmp_path / "a.jpg").write_bytes(jpeg_with_scans(1, between))
    assert read_image(tmp_path / "a.jpg").shape == (640, 1218, 3)
    (tmp_path / "a.jpg").write_bytes(jpeg_with_scans(4000, between))
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "a.jpg")
    assert str(error.value) == f"{tmp_path}/a.jpg: a JPEG with too many scans; save it again"


def test_cut_jpeg_with_an_end_in_a_comment(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg_with_scans(1, b"\xff\xfe\0\x04\xff\xd9")[:-2000])
    with pytest.raises(InputError, match="not a supported image, or corrupt"):
        read_image(tmp_path / "a.jpg")


def test_scans_behind_the_end_do_not_count(tmp_path):
    """A phone's motion photo has a video after its image: no part of the encoded image."""
    (tmp_path / "a.jpg").write_bytes((EXAMPLES / "people.jpg").read_bytes() + b"\xff\xda" * 9999)
    assert read_image(tmp_path / "a.jpg").shape == (640, 1218, 3)


def test_png_of_empty_chunks(tmp_path, astronaut):
    data = cv2.imencode(".png", astronaut)[1].tobytes()
    empty = b"\0\0\0\0abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
    (tmp_path / "a.png").write_bytes(data[:33] + empty * 20_000 + data[33:])
    with pytest.raises(InputError, match="not a supported image, or corrupt"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("image", "screen", "window"),
    [
        pytest.param((4872, 3248), (1920, 1080), (1377, 918), id="large"),
        pytest.param((3248, 4872), (1920, 1080), (612, 918), id="large, upright"),
        pytest.param((640, 480), (1920, 1080), (640, 480), id="as large as it is"),
        pytest.param((64, 64), (1920, 1080), (480, 480), id="small"),
        pytest.param((20000, 1), (1280, 720), (1088, 1), id="thin"),
    ],
)
def test_window_size_is_within_the_screen_and_keeps_the_shape(image, screen, window):
    assert window_size(*image, screen) == window


def test_screen_size_without_a_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    assert screen_size() == (1280, 720) or not sys.platform.startswith("linux")


def test_window_of_an_image_is_opened_in_the_screen_size(monkeypatch, astronaut):
    sizes = []
    monkeypatch.setattr("facemask.video.display.screen_size", lambda: (1000, 600))
    monkeypatch.setattr(cv2, "namedWindow", lambda name, flags: sizes.append(flags))
    monkeypatch.setattr(cv2, "resizeWindow", lambda name, *size: sizes.append(size))
    monkeypatch.setattr(cv2, "imshow", lambda name, image: sizes.append(image.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: ord(" "))
    assert show_image(np.zeros((3000, 4000, 3), np.uint8))
    assert sizes == [cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL, (680, 510), (3000, 4000, 3)]
