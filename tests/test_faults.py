"""Every kind of bad input and fault, and what it gets: each row of the README's tables is a test, word for word."""

import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import detect_mask_image
from facemask.io.find_images import find_images
from facemask.io.json_lines import resumable_json_lines
from facemask.models.model_file import CHECKSUM_LENGTH, LARGEST_MODEL, checksum, with_checksum
from facemask.models.model_info import METADATA_NAME, ModelInfo
from tests.helpers import EXAMPLES, ROOT, write_class_folders

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="FIFOs, limits and signals as Linux has them")

ASTRONAUT = EXAMPLES / "astronaut.jpg"
MODEL = ROOT / "mask_detector.keras"
ONNX = ROOT / "mask_detector.onnx"


@dataclass(frozen=True)
class Row:
    """A row of the README's tables: what is given, the exit code, and the lines on stderr but for [INFO]."""

    what: str
    code: int
    lines: list[str]


def read_rows() -> list[Row]:
    text = (ROOT / "README.md").read_text()
    table = text[text.index("<summary>Every kind of bad input") : text.index("</details>")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines() if line.startswith("| ")]
    return [Row(what, int(code), re.findall("`([^`]+)`", said)) for what, code, said in rows if code.isdecimal()]


ROWS = read_rows()
CASES: dict[str, Callable] = {}


def case(what: str) -> Callable:
    """Register a test of that row: a function that makes files in the working folder and returns a `Run` or several."""

    def register(function: Callable) -> Callable:
        assert what not in CASES
        CASES[what] = function
        return function

    return register


@dataclass(frozen=True)
class Run:
    """A command to run; `bad`, if any, are pictures that must each get the row's line as a warning, the others going on."""

    arguments: list[str]
    script: Callable[[list[str]], int] = detect_mask_image.main
    bad: list[str] = field(default_factory=list)
    after: Callable[[], None] = lambda: None  # checks more


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["detect_mask_image.py"])  # argparse's messages begin with it
    return tmp_path


@contextmanager
def running(function: Callable, here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Run]]:
    made = function(here, monkeypatch) if function.__code__.co_argcount == 2 else function(here)
    try:
        yield made if isinstance(made, list) else [made]
    finally:
        if os.geteuid() != 0 and os.getuid() == 0:
            os.seteuid(0)


def without_rights() -> None:
    """Go on as somebody whom file permissions bind, until the test ends: root may do all."""
    if os.geteuid() == 0:
        for folder in (Path.cwd(), *Path.cwd().parents):
            if folder.stat().st_mode & 0o055 == 0:  # pytest's are closed to others
                folder.chmod(0o755)
        os.seteuid(65534)


def picture(name: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ASTRONAUT, name)
    return name


def encoded(kind: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = BytesIO()
    (image or Image.open(ASTRONAUT)).save(buffer, kind, **options)
    return buffer.getvalue()


def write(name: str, data: bytes) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data)
    return name


KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}


# Pictures


@case("missing")
def missing(here):
    return Run(["-i", "a.jpg"])


@case("empty")
def empty(here):
    return Run(["-i", write("a.jpg", b"")])


@case("cut off at any tenth of its length: JPEG, PNG, WebP, BMP, TIFF")
def cut_off(here):
    whole = {suffix: encoded(kind) for suffix, kind in KINDS.items()} | {"progressive.jpg": encoded("JPEG", progressive=True)}
    bad = [
        write(f"all/{tenth}.{suffix}", data[: len(data) * tenth // 10]) for suffix, data in whole.items() for tenth in range(1, 10)
    ]
    picture("all/good.jpg")
    return Run(["-i", "all"], bad=sorted(bad))


@case("of another kind, whatever its name says: text, GIF, a video, noise")
def other_kinds(here):
    data = {
        "text": b"text",
        "gif": encoded("GIF"),
        "video": b"\0\0\0\x18ftypmp42" + bytes(99),
        "noise": np.random.default_rng(0).bytes(999),
        "stub": b"\xff\xd8\xff",
        "pixels": b"P6 1 1 255 abc",
        "riff": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
    }
    return Run(["-i", "all"], bad=[write(f"all/{name}.jpg", data[name]) for name in sorted(data)])


@case("a PNG, WebP, BMP or TIFF that is named .jpg, and the other way round")
def wrong_suffix(here):
    for suffix, kind in KINDS.items():
        write(f"all/{suffix}.jpg" if suffix != "jpg" else "all/jpg.png", encoded(kind))
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_faces(5))


def check_faces(count: int, faces: int = 1) -> None:
    records = [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]
    assert [len(record["faces"]) for record in records] == [faces] * count


@case("CMYK, grey, 1 bit, 16 bits, palette, transparent")
def colours(here):
    image = Image.open(ASTRONAUT)
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


@case("animated PNG or WebP: the first frame counts")
def animated(here):
    if cv2.__version__ < "4.11":
        pytest.skip("OpenCV before 4.11 refuses animated WebP")
    first, second = Image.open(ASTRONAUT), Image.new("RGB", Image.open(ASTRONAUT).size)
    for suffix in ("png", "webp"):
        write(f"all/a.{suffix}", encoded(KINDS[suffix], first, save_all=True, append_images=[second]))
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_faces(2))


@case("1 x 1, 1 x 20000, 20000 x 1")
def thin(here):
    for height, width in ((1, 1), (1, 20000), (20000, 1)):
        for suffix in ("jpg", "png"):
            write(f"all/{height}_{width}.{suffix}", cv2.imencode(f".{suffix}", np.full((height, width, 3), 90, np.uint8))[1])
    return Run(["-i", "all", "--jsonl", "o.jsonl", "-o", "out"], after=lambda: check_faces(6, faces=0))


@case("turned by EXIF, any of its 8 ways: it is turned upright")
def turned(here):
    image = Image.open(ASTRONAUT)
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose's numbers, which undo each
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        as_stored = image if orientation == 1 else image.transpose(Image.Transpose(stored[orientation]))
        for suffix in ("jpg", "png", "webp"):
            write(f"all/{orientation}.{suffix}", encoded(KINDS[suffix], as_stored, exif=exif))
        write(f"all/{orientation}.tif", encoded("TIFF", as_stored, tiffinfo={0x0112: orientation}))
    return Run(["-i", "all", "--jsonl", "o.jsonl"], after=lambda: check_boxes(32))


def check_boxes(count: int) -> None:
    boxes = [json.loads(line)["faces"][0]["box"] for line in Path("o.jsonl").read_text().splitlines()]
    assert len(boxes) == count
    np.testing.assert_allclose(boxes, [boxes[0]] * count, atol=5)


@case("with broken EXIF: it is taken as stored")
def broken_exif(here):
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


@case("a decompression bomb: a few bytes that say 60000 x 60000 pixels")
def bomb(here):
    idat = b"IDAT" + zlib.compress(bytes(10**6))
    data = png_header(60000, 60000) + struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    jpeg = bytearray(encoded("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60000, 60000)
    bitmap = bytearray(encoded("BMP"))
    bitmap[18:26] = struct.pack("<ii", 60000, 60000)
    bombs = {"a.jpg": bytes(jpeg), "b.png": data, "c.bmp": bytes(bitmap)}
    return Run(["-i", "all"], bad=[write(f"all/{name}", bombs[name]) for name in bombs])


@case("larger than --max-pixels 1000")
def max_pixels(here):
    return Run(["-i", picture("a.jpg"), "--max-pixels", "1000"])


@case("a JPEG that asks for thousands of passes over it")
def passes(here):
    data = encoded("JPEG", Image.new("RGB", (8000, 8000)), progressive=True)
    scan = data.rindex(b"\xff\xda")
    return Run(["-i", write("a.jpg", data[:scan] + data[scan:-2] * 2000 + data[-2:])])


@case("more faces than --max-faces 3: the surest are kept")
def max_faces(here):
    shutil.copy(EXAMPLES / "people.jpg", "a.jpg")
    return Run(["-i", "a.jpg", "--max-faces", "3", "--jsonl", "o.jsonl"], after=lambda: check_faces(1, faces=3))


@case("names with spaces, quotes, line feeds, terminal codes, Unicode, bytes that are not UTF-8")
def names(here):
    odd = [b"sp ace", b"q'u\"o", b"line\nfeed", b"\x1b[31mred", "ü 😷".encode(), b"caf\xe9", b"-i"]
    for name in odd:
        shutil.copy(ASTRONAUT, os.path.join(os.fsencode(here), name + b".jpg"))

    def check() -> None:
        images = {json.loads(line)["image"] for line in Path("o.jsonl").read_text().splitlines()}
        assert images == {os.fsdecode(b"./" + name + b".jpg").removeprefix("./") for name in odd}

    return Run(["-i", ".", "--jsonl", "o.jsonl", "--csv", "o.csv"], after=check)


@case("a link to itself")
def link_loop(here):
    Path("a.jpg").symlink_to("a.jpg")
    return Run(["-i", "a.jpg"])


@case("a folder with links that lead round in circles: each picture counts once")
def folder_loop(here):
    Path("all/sub").mkdir(parents=True)
    picture("all/sub/a.jpg")
    for number in range(3):
        Path(f"all/sub/{number}").symlink_to("..")
    return [
        Run(["-i", source, "--jsonl", "o.jsonl"], after=lambda: check_faces(1)) for source in ("all", "all/**/*.jpg")
    ]


@case("a FIFO, device or folder in a picture's place")
def fifo(here):
    os.mkfifo("a.jpg")
    runs = [Run(["-i", "a.jpg"])]
    Path("all").mkdir()
    os.mkfifo("all/a.jpg")
    Path("all/b.jpg").symlink_to("/dev/zero")
    picture("all/good.jpg")
    return [*runs, Run(["-i", "all"], bad=["all/a.jpg", "all/b.jpg"])]


@case("removed while the run goes on")
def vanishes(here, monkeypatch):
    monkeypatch.setattr("facemask.parallel.thread_budget", lambda: (1, 1))
    for name in "abc":
        picture(f"{name}.jpg")
    monkeypatch.setattr("facemask.io.records.leave_out_results", lambda paths, output: Path("b.jpg").unlink() or paths)
    return Run(["-i", "a.jpg", "b.jpg", "c.jpg"])


def once_opened(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Have something happen to a picture between the moment its size is taken and the reading."""
    real = os.fstat

    def fstat(number: int) -> os.stat_result:
        status = real(number)
        change()
        return status

    monkeypatch.setattr("facemask.io.images.os.fstat", fstat)


@case("cut while it is read")
def shrinks(here, monkeypatch):
    picture("a.jpg")
    once_opened(monkeypatch, lambda: os.truncate("a.jpg", 9999))
    return Run(["-i", "a.jpg"])


@case("growing while it is read: what was there at first counts")
def grows(here, monkeypatch):
    picture("a.jpg")

    def add() -> None:
        with open("a.jpg", "ab") as file:
            file.write(bytes(9999))

    once_opened(monkeypatch, add)
    return Run(["-i", "a.jpg", "--jsonl", "o.jsonl"], after=lambda: check_faces(1))


@case("without permission to read it")
def closed_file(here):
    os.chmod(picture("a.jpg"), 0)
    warm_up()
    without_rights()
    return Run(["-i", "a.jpg"])


def warm_up() -> None:
    """Import what a run needs while the rights to are there."""
    assert detect_mask_image.main(["-i", str(ASTRONAUT)]) == 0


@case("a folder with a subfolder without permission: the rest goes on")
def closed_folder(here):
    picture_in_closed_folder()
    picture("all/b.jpg")
    warm_up()
    without_rights()
    return Run(["-i", "all"])


def picture_in_closed_folder() -> None:
    Path("all/sub").mkdir(parents=True)
    picture("all/sub/a.jpg")
    os.chmod("all/sub", 0)


@case("a folder without pictures")
def no_pictures(here):
    write("all/notes.txt", b"")
    return Run(["-i", "all"])


@case("a pattern that nothing matches")
def no_match(here):
    return Run(["-i", "*.png"])


# Models


def model(name: str, data: bytes) -> Run:
    return Run(["-i", str(ASTRONAUT), "-m", write(name, data)])


@case("missing model")
def missing_model(here):
    return Run(["-i", str(ASTRONAUT), "-m", "m.onnx"])


@case("cut off at any tenth of its length, random bytes, empty, a bit changed")
def broken_model(here):
    whole = ONNX.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 4
    broken = [whole[: len(whole) * tenth // 10] for tenth in range(10)]
    return [model("m.onnx", data) for data in (*broken, np.random.default_rng(0).bytes(9999), bytes(flipped), whole + b"\0")]


@case("the same of a .keras")
def broken_keras(here):
    whole = MODEL.read_bytes()
    return [model("m.keras", data) for data in (b"", b"PK", whole[:5000], whole[:-1], whole[5000:])]


def network(build: Callable, info: ModelInfo | None, inputs: tuple = ("n", 3, 32, 32), outputs: tuple = ("n", 2)) -> bytes:
    """A small ONNX network, whose checksum is right."""
    from onnx import TensorProto, helper

    nodes, weights = build(helper)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "small", [value("x", TensorProto.FLOAT, inputs)], [value("y", TensorProto.FLOAT, outputs)], weights
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if info:
        helper.set_model_props(proto, {METADATA_NAME: info.to_json()})
    return with_checksum(proto.SerializeToString())


def mean_of_pixels(outputs: int, bias: float = 0.0) -> Callable:
    """Build a network that gives so many outputs, all the same."""

    def build(helper) -> tuple[list, list]:
        from onnx import numpy_helper

        weights = {"w": np.zeros((3, outputs)), "b": np.full(outputs, bias)}
        nodes = [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"]),
        ]
        return nodes, [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]

    return build


TWO = ModelInfo(("a", "b"), 32, 0.0)


@case("a network without this project's metadata")
def no_metadata(here):
    return [model("m.onnx", network(mean_of_pixels(2, 0.5), None)), model("m.onnx", ONNX.with_name("face_detector").joinpath("masked_faces_ssd.onnx").read_bytes())]


@case("metadata that lie about the classes")
def lying_classes(here):
    return model("m.onnx", network(mean_of_pixels(5, 0.2), TWO, outputs=("n", 5)))


@case("metadata that cannot be used: classes twice, a size of -1 or 10^9, no JSON")
def odd_metadata(here):
    odd = [
        ModelInfo(("a", "a"), 32, 0.0),
        ModelInfo(("a",), 32, 0.0),
        ModelInfo(("a", "b\n"), 32, 0.0),
        ModelInfo(("a", "b"), -1, 0.0),
        ModelInfo(("a", "b"), 10**9, 0.0),
        ModelInfo(("a", "b"), 32, float("nan")),
    ]
    texts = [info.to_json() for info in odd] + ["", "[]", "{}", '{"classes": 3}']

    class Text:
        def __init__(self, text: str) -> None:
            self.to_json = lambda: text

    return [model("m.onnx", network(mean_of_pixels(2, 0.5), Text(text))) for text in texts]


@case("a network for pictures of another shape")
def other_shape(here):
    def build(helper) -> tuple[list, list]:
        from onnx import numpy_helper

        weights = {"w": np.zeros((3 * 7 * 7, 2)), "b": np.full(2, 0.5)}
        nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"])]
        return nodes, [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]

    return model("m.onnx", network(build, TWO, inputs=("n", 3, 7, 7)))


@case("a network whose outputs are no probabilities, or NaN")
def no_probabilities(here):
    return [model("m.onnx", network(mean_of_pixels(2, value), TWO)) for value in (3.0, float("nan"))]


@case("a network whose weights lie in another file")
def external_weights(here):
    pytest.importorskip("onnxruntime")

    def build(helper) -> tuple[list, list]:
        from onnx import TensorProto

        nodes, weights = mean_of_pixels(2, 0.5)(helper)
        weights[0].ClearField("raw_data")
        weights[0].data_location = TensorProto.EXTERNAL
        entry = weights[0].external_data.add()
        entry.key, entry.value = "location", "secret"
        return nodes, weights

    write("secret", bytes(24))
    return model("m.onnx", network(build, TWO))


def keras_file(parts: dict[str, bytes], info: ModelInfo = TWO) -> bytes:
    """A .keras file with its checksum, as anybody can make one."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
        archive.writestr(METADATA_NAME, info.to_json())
        archive.comment = bytes(CHECKSUM_LENGTH)
    data = buffer.getvalue()[:-CHECKSUM_LENGTH]
    return data + checksum(data)


@case("a zip bomb: a .keras whose weights take 300 MB")
def zip_bomb(here):
    return model("m.keras", keras_file({"model.weights.h5": bytes(LARGEST_MODEL + 1)}))


def on_keras(function: Callable) -> Callable:
    """Mark a case as one that needs Keras."""
    function.marks = [pytest.mark.training]
    return function


def with_keras(data: bytes) -> Run:
    from facemask.__main__ import main

    return Run([write("m.keras", data)], script=main)


@case("a .keras whose configuration names code: a Lambda, a custom object; only its numbers are read")
@on_keras
def code_in_keras(here):
    keras = pytest.importorskip("keras")
    lambda_model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: Path("ran").touch() or x)])
    with zipfile.ZipFile(MODEL) as archive:
        weights = archive.read("model.weights.h5")
        info = ModelInfo.from_json(archive.read(METADATA_NAME))
    Path("ran").unlink()  # Keras called it to learn its output's shape
    custom = {"module": "os", "class_name": "system", "config": {"command": "touch ran"}, "registered_name": "system"}

    def check() -> None:
        assert not Path("ran").exists() and Path("m.onnx").exists()

    runs = []
    for config in (lambda_model.to_json(), json.dumps(custom)):
        data = keras_file({"config.json": config.encode(), "metadata.json": b"{}", "model.weights.h5": weights}, info)
        runs.append(Run(with_keras(data).arguments, script=with_keras(data).script, after=check))
    return runs


@case("a .keras of another network")
@on_keras
def other_keras(here):
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save_weights("other.weights.h5")
    return with_keras(keras_file({"model.weights.h5": Path("other.weights.h5").read_bytes()}))


def weights_file(fill: Callable) -> Run:
    """Train from an HDF5 file of weights that `fill` makes."""
    import h5py

    import train_mask_detector

    with h5py.File("w.weights.h5", "w") as file:
        fill(file)
    for label in ("a", "b"):
        write(f"data/{label}/a.jpg", ASTRONAUT.read_bytes())
    return Run(["-d", "data", "-m", "m.keras", "--weights", "w.weights.h5"], script=train_mask_detector.main)


@case("HDF5 weights with pickled objects in them: they are not unpickled")
@on_keras
def pickled(here):
    import pickle

    np_void = pytest.importorskip("numpy").void

    class Evil:
        def __reduce__(self):
            return os.system, ("touch ran",)

    def fill(file) -> None:
        file["layers/conv1/vars/0"] = np_void(pickle.dumps(Evil()))

    run = weights_file(fill)
    return Run(run.arguments, script=run.script, after=lambda: assert_absent("ran"))


def assert_absent(name: str) -> None:
    assert not Path(name).exists()


@case("HDF5 weights that point to another file")
@on_keras
def external_hdf5(here):
    import h5py

    def fill(file) -> None:
        file["layers/conv1/vars/0"] = h5py.ExternalLink("/etc/passwd", "/")

    return weights_file(fill)


@case("HDF5 weights that say they are of terabytes")
@on_keras
def huge_hdf5(here):
    return weights_file(lambda file: file.create_dataset("layers/conv1/vars/0", (10**6, 10**6), chunks=True, fillvalue=1.0))


@case("HDF5 weights that are cut off, or noise")
@on_keras
def broken_hdf5(here):
    run = weights_file(lambda file: None)
    whole = Path("w.weights.h5").read_bytes()
    Path("w.weights.h5").write_bytes(whole[: len(whole) // 2])
    return run


# Videos


def on_video(*arguments: str) -> Run:
    import detect_mask_video

    return Run(["-i", *arguments], script=detect_mask_video.main)


@case("missing video")
def missing_video(here):
    return on_video("v.mp4")


@case("no video: empty, text, noise")
def no_video(here):
    contents = {"empty": b"", "text": b"text" * 99, "noise": np.random.default_rng(0).bytes(9999)}
    runs = []
    for data in contents.values():
        runs.append(Run(["-i", "v.mp4"], script=lambda arguments, data=data: on_video(write("v.mp4", data)).script(arguments)))
    return runs


@case("cut off: what is there is looked at")
def cut_video(here):
    image = cv2.resize(cv2.imread(str(ASTRONAUT)), (96, 96))
    writer = cv2.VideoWriter("v.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 96))
    for _ in range(50):
        writer.write(image)
    writer.release()
    data = Path("v.avi").read_bytes()
    return on_video(write("v.avi", data[: len(data) // 2]), "--jsonl", "o.jsonl")


@case("frames larger than --max-pixels 1000")
def large_frames(here):
    writer = cv2.VideoWriter("v.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 96))
    writer.write(np.zeros((96, 96, 3), np.uint8))
    writer.release()
    return on_video("v.avi", "--max-pixels", "1000")


@case("pictures as frames, one of them broken")
def broken_frame(here):
    picture("all/1.jpg")
    write("all/2.jpg", b"text")
    picture("all/3.jpg")
    return on_video("all", "--jsonl", "o.jsonl")


@case("a camera that is not there")
def no_camera(here):
    return on_video("97")


@case("a stream that nobody sends; the password is not told")
def no_stream(here):
    return on_video("http://me:secret@127.0.0.1:9/x")


# Outputs


@case("in a folder that does not exist")
def no_folder(here):
    return Run(["-i", str(ASTRONAUT), "--jsonl", "none/o.jsonl"])


@case("in a folder that may not be written to")
def read_only(here):
    Path("closed").mkdir(mode=0o555)
    warm_up()
    without_rights()
    return Run(["-i", str(ASTRONAUT), "--jsonl", "closed/o.jsonl"])


@case("where there is a folder of that name")
def is_folder(here):
    Path("o.jsonl").mkdir()
    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl"])


@case("a device")
def device(here):
    return Run(["-i", str(ASTRONAUT), "--jsonl", "/dev/null"])


@case("the input itself, also by another name, or another output")
def same_file(here):
    picture("a.jpg")
    Path("link.jpg").symlink_to("a.jpg")
    return [
        Run(["-i", "a.jpg", "-o", "a.jpg"], after=lambda: check_input()),
        Run(["-i", "./link.jpg", "-o", "a.jpg"], after=lambda: check_input()),
        Run(["-i", str(ASTRONAUT), "--jsonl", "a.jpg", "--csv", "a.jpg"], after=lambda: check_input()),
    ]


def check_input() -> None:
    assert Path("a.jpg").read_bytes() == ASTRONAUT.read_bytes()


@case("where another run is writing")
def busy(here):
    def script(arguments: list[str]) -> int:
        with resumable_json_lines("o.jsonl", resume=False):
            return detect_mask_image.main(arguments)

    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl"], script=script)


@case("where a link lies in the way: it is not followed")
def link_in_the_way(here):
    write("precious", b"precious")
    Path("o.partial.jsonl").symlink_to("precious")
    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl"], after=lambda: check_precious())


def check_precious() -> None:
    assert Path("precious").read_bytes() == b"precious"


@case("an annotated picture that its format cannot hold: what is found counts, the rest goes on")
def format_too_small(here):
    write("all/a.webp", encoded("PNG", Image.new("RGB", (17_000, 10))))
    picture("all/b.jpg")

    def check() -> None:
        assert [path.name for path in Path("out").iterdir()] == ["b.jpg"]
        assert len(Path("o.jsonl").read_text().splitlines()) == 2

    return Run(["-i", "all", "-o", "out", "--jsonl", "o.jsonl"], after=check)


def in_process(arguments: list[str], **options) -> Callable[[list[str]], int]:
    """Return a script that runs as one of its own, and copies what it says."""

    def script(_: list[str]) -> int:
        command = [sys.executable, str(ROOT / "detect_mask_image.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, **options)
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode

    return script


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def check_whole_lines(name: str) -> None:
    data = Path(name).read_bytes()
    assert data.endswith(b"\n") and all(json.loads(line) for line in data.splitlines())


@case("on a disk that gets full: what was written stays whole, and can be gone on with")
def full_disk(here):
    for number in range(20):
        picture(f"all/{number:02d}.jpg")

    def check() -> None:
        check_whole_lines("o.partial.jsonl")
        assert not Path("o.jsonl").exists()

    script = in_process(["-i", "all", "--jsonl", "o.jsonl"], preexec_fn=limit_files)
    return Run([], script=script, after=check)


@case("an annotated picture on a full disk")
def full_disk_picture(here):
    script = in_process(["-i", picture("a.jpg"), "-o", "o.jpg"], preexec_fn=limit_files)
    return Run([], script=script, after=lambda: assert_names(here, ["a.jpg"]))


def assert_names(folder: Path, names: list[str]) -> None:
    assert sorted(path.name for path in folder.iterdir()) == names


@case("stdout that is closed, as by `head`")
def closed_stdout(here):
    def script(_: list[str]) -> int:
        command = [sys.executable, str(ROOT / "detect_mask_image.py"), "-i", str(EXAMPLES)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.close()
            sys.stderr.write(process.stderr.read())
        return process.returncode

    return Run([], script=script)


# Signals


def interrupted(number: int, here: Path) -> Run:
    """Send a signal to a run over a folder when it has told of some pictures; then go on, and compare."""
    Path("all").mkdir()
    for index in range(60):
        os.link(picture("a.jpg"), f"all/{index:02d}.jpg")

    def script(_: list[str]) -> int:
        command = [sys.executable, str(ROOT / "detect_mask_image.py"), "-i", "all", "--jsonl", "o.jsonl", "--csv", "o.csv"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            partial, patience = Path("o.partial.jsonl"), time.monotonic() + 60
            while not (partial.exists() and partial.stat().st_size) and time.monotonic() < patience:
                time.sleep(0.002)
            process.send_signal(number)
            sys.stderr.write(process.communicate(timeout=60)[1])
        return 128 - process.returncode if process.returncode < 0 else process.returncode

    def check() -> None:
        assert not Path("o.jsonl").exists() and not Path("o.csv").exists()
        assert 0 < len(Path("o.partial.jsonl").read_bytes().splitlines()) < 60
        assert detect_mask_image.main(["-i", "all", "--jsonl", "o.jsonl", "--csv", "o.csv", "--resume"]) == 0
        assert detect_mask_image.main(["-i", "all", "--jsonl", "whole.jsonl", "--csv", "whole.csv"]) == 0
        for suffix in ("jsonl", "csv"):
            assert Path(f"o.{suffix}").read_bytes() == Path(f"whole.{suffix}").read_bytes()
        assert not list(here.glob("*.partial*"))

    return Run([], script=script, after=check)


@case("Ctrl-C: --resume goes on")
def control_c(here):
    return interrupted(signal.SIGINT, here)


@case("SIGTERM: --resume goes on (the same of a terminal that closes, 129)")
def terminated(here):
    return interrupted(signal.SIGTERM, here)


@case("kill -9, also in the midst of a line: --resume goes on")
def killed(here):
    return interrupted(signal.SIGKILL, here)


@case("--resume without --jsonl")
def resume_without_jsonl(here):
    return Run(["-i", str(ASTRONAUT), "--resume"])


@case("--resume of a file that another program wrote")
def resume_other(here):
    write("o.jsonl", b'{"frame": 0}\n')
    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl", "--resume"], after=lambda: check_resumed('{"frame": 0}\n'))


@case("--resume of a file with a broken line")
def resume_broken(here):
    text = '{"image": "a", "faces": []}\n{"image"\n{"image": "b", "faces": []}\n'
    write("o.jsonl", text.encode())
    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl", "--resume"], after=lambda: check_resumed(text))


def check_resumed(text: str) -> None:
    assert Path("o.jsonl").read_text() == text


# Datasets


def training(*classes: str, count: int = 1) -> Run:
    """Train on folders of those classes, each with copies of a picture."""
    import train_mask_detector

    for label in classes:
        for number in range(count):
            write(f"data/{label}/{number}.jpg", ASTRONAUT.read_bytes())
    return Run(["-d", "data", "-m", "m.keras", "--weights", str(MODEL)], script=train_mask_detector.main)


@case("no such folder")
@on_keras
def no_dataset(here):
    return training()


@case("one class")
@on_keras
def one_class(here):
    return training("with_mask")


@case("a class without photos")
@on_keras
def empty_class(here):
    Path("data/without_mask").mkdir(parents=True)
    return training("with_mask")


@case("classes one folder deeper")
@on_keras
def nested(here):
    return training("train/with_mask", "train/without_mask")


@case("labels that differ in case alone")
@on_keras
def label_case(here):
    return training("With_Mask", "with_mask", "without_mask")


@case("one photo a class")
@on_keras
def one_photo(here):
    return training("with_mask", "without_mask")


@case("100,000 photos of one class: counted in seconds")
@on_keras
def many(here):
    Path("data/with_mask").mkdir(parents=True)
    for number in range(100_000):
        os.close(os.open(f"data/with_mask/{number}.jpg", os.O_CREAT | os.O_WRONLY))

    def check() -> None:
        assert len(find_images(["data"])) == 100_000

    run = training()
    return Run(run.arguments, script=run.script, after=check)


@case("photos that cannot be read: counted, listed, left where they are")
@on_keras
def unreadable(here):
    import train_mask_detector

    write_class_folders(here / "data")
    write("data/with_mask/bad.jpg", b"text")

    def check() -> None:
        assert Path("data/with_mask/bad.jpg").read_bytes() == b"text"

    arguments = ["-d", "data", "-m", "m.keras", "--weights", str(MODEL), "-e", "0", "--size", "96"]
    return Run(arguments, script=train_mask_detector.main, after=check)


def annotated(text: str) -> Run:
    """Evaluate on an annotated photo."""
    import evaluate_mask_detector

    write("photos/images/a.jpg", ASTRONAUT.read_bytes())
    write("photos/annotations/a.xml", text.encode())
    return Run(["-d", "photos"], script=evaluate_mask_detector.main)


XML = "<annotation><object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"


@case("an annotation that is no XML")
@on_keras
def no_xml(here):
    return annotated("text")


@case("an annotation with entities: none is expanded")
@on_keras
def entities(here):
    bomb = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>' + XML.format(name="&b;", x1=1)
    outside = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + XML.format(name="&a;", x1=1)
    return [annotated(bomb), annotated(outside)]


@case("an annotation with a box that is no number")
@on_keras
def no_number(here):
    return annotated(XML.format(name="with_mask", x1="nan"))


def test_every_row_has_its_test_and_every_test_its_row():
    assert [row.what for row in ROWS] == list(CASES)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.what, marks=getattr(CASES.get(row.what), "marks", [])) for row in ROWS])
def test_row(row, here, capsys, monkeypatch):
    with running(CASES[row.what], here, monkeypatch) as runs:
        for run in runs:
            capsys.readouterr()
            try:
                code = run.script(run.arguments)
            except SystemExit as error:
                code = error.code
            err = capsys.readouterr().err
            said = [line for line in err.splitlines() if is_for_people(line)]
            expected = row.lines
            if run.bad:
                (line,) = row.lines
                expected = [line.replace("error: a.jpg:", f"[WARN] {name}:") for name in run.bad]
            assert (code, said) == (1 if run.bad else row.code, expected)
            run.after()


def is_for_people(line: str) -> bool:
    """Tell whether a line of stderr is more than the course of things: no [INFO], and no part of a bar."""
    course = line.startswith(("[INFO]", "usage:", " ")) or "%|" in line or "/step" in line
    return bool(line) and line.isprintable() and not course  # Keras' bars go back over themselves
