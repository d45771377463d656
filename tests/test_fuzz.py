"""Mutated images, models and annotations, and runs killed at random: a few of each, many with FUZZ=1 (`make fuzz`).

Hypothesis draws the mutations, and shrinks one that breaks something to the least that does. Whoever hangs for 30 s is
ended with the stack printed; what is slower than 10 s fails.
"""

import faulthandler
import io
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image

import detect_mask_image
from facemask.cli import options
from facemask.detector import MaskDetector
from facemask.errors import InputError
from facemask.io.images import MAX_PIXELS
from facemask.models.face_detectors import load_face_detector
from facemask.models.mask_classifier import MaskClassifier
from facemask.models.model_file import CHECKSUM_LENGTH, checksum, with_checksum
from facemask.models.model_info import METADATA_NAME, ModelInfo
from tests.helpers import EXAMPLES, ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and signals as Linux has them"),
]

HAS_ONNXRUNTIME = find_spec("onnxruntime") is not None  # without, a malicious model can crash OpenCV
MANY = bool(os.environ.get("FUZZ"))
SLOWEST, HANGS = 10, 30  # s
MOST_MEMORY = 12 * MAX_PIXELS  # bytes more than before: a broken file may say that it is as large as is allowed
INTERESTING = (0, 1, 2, 7, 8, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def fuzz(few: int, many: int) -> settings:
    return settings(
        max_examples=many if MANY else few,
        deadline=timedelta(seconds=SLOWEST),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
        print_blob=True,
    )


@contextmanager
def watched() -> Iterator[None]:
    """End the process, with its stack printed, if what is inside hangs."""
    faulthandler.dump_traceback_later(HANGS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak - before < MOST_MEMORY / 1024
    if MANY:
        print(f"\npeak memory {peak / 1024:.0f} MB")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where each input lies while it is tried: after a crash the one that did it is there."""
    return tmp_path_factory.mktemp("fuzz")


# Mutations


def positions(length: int) -> st.SearchStrategy[int]:
    """Anywhere, the beginning, where most of the structure is, more often."""
    return st.integers(0, min(length, 400)) | st.integers(0, length)


def mutate(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` changed in one to four places, mostly a little, so that what reads it gets far."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(positions(len(data)))
        end = min(start + draw(st.integers(1, 8) | st.integers(1, 64) | st.integers(1, len(data) + 1)), len(data))
        kind = draw(st.sampled_from(["flip"] * 5 + ["number"] * 4 + ["noise", "delete", "double", "move", "zero", "cut"]))
        if kind == "flip":
            new = bytes([*data[start : start + 1]])
            new = bytes([new[0] ^ 1 << draw(st.integers(0, 7))]) if new else b""
            data = data[:start] + new + data[start + 1 :]
        elif kind == "number":
            layout = draw(st.sampled_from(["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"]))
            size = struct.calcsize(layout)
            new = struct.pack(layout, draw(st.sampled_from(INTERESTING)) % 256**size)
            data = data[:start] + new + data[start + size :]
        elif kind == "noise":
            data = data[:start] + draw(st.binary(max_size=16)) + data[start:]
        elif kind == "delete":
            data = data[:start] + data[end:]
        elif kind == "double":
            data = data[:end] + data[start:end] + data[end:] if len(data) < 1 << 24 else data
        elif kind == "move":
            to = draw(positions(len(data)))
            data = data[:to] + data[start:end] + data[to + end - start :]
        elif kind == "zero":
            data = data[:start] + bytes(end - start) + data[end:]
        else:
            data = data[:start]
    return data


# Images


def encoded(kind: str, image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def images() -> dict[str, bytes]:
    """Small images of all kinds."""
    with Image.open(EXAMPLES / "astronaut.jpg") as whole:
        image = whole.crop((120, 40, 260, 200)).resize((70, 80))
    other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.asarray(image).astype(np.uint16) * 257
    return {
        "jpeg": encoded("JPEG", image),
        "jpeg with EXIF": encoded("JPEG", image, exif=exif),
        "jpeg progressive": encoded("JPEG", image, progressive=True),
        "jpeg CMYK": encoded("JPEG", image.convert("CMYK")),
        "jpeg grey": encoded("JPEG", image.convert("L")),
        "jpeg restarts": encoded("JPEG", image, restart_marker_rows=1, subsampling=0),
        "png": encoded("PNG", image),
        "png with EXIF": encoded("PNG", image, exif=exif),
        "png palette": encoded("PNG", image.convert("P"), transparency=3),
        "png 1 bit": encoded("PNG", image.convert("1")),
        "png alpha": encoded("PNG", image.convert("RGBA")),
        "png 16 bits": cv2.imencode(".png", deep)[1].tobytes(),
        "png animated": encoded("PNG", image, save_all=True, append_images=[other]),
        "webp": encoded("WEBP", image),
        "webp lossless": encoded("WEBP", image, lossless=True),
        "webp alpha": encoded("WEBP", image.convert("RGBA"), exif=exif),
        "webp animated": encoded("WEBP", image, save_all=True, append_images=[other]),
        "bmp": encoded("BMP", image),
        "bmp palette": encoded("BMP", image.convert("P")),
        "bmp 1 bit": encoded("BMP", image.convert("1")),
        "bmp alpha": encoded("BMP", image.convert("RGBA")),
        "tiff": encoded("TIFF", image),
        "tiff LZW": encoded("TIFF", image, compression="tiff_lzw"),
        "tiff JPEG": encoded("TIFF", image, compression="jpeg"),
        "tiff fax": encoded("TIFF", image.convert("1"), compression="group4"),
        "gif": encoded("GIF", image),
        "gif animated": encoded("GIF", image, save_all=True, append_images=[other]),
        "avif": encoded("AVIF", image),
        "heic": heic(image),
        "tiff 16 bits": cv2.imencode(".tiff", deep)[1].tobytes(),
    }


def heic(image: Image.Image) -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.encode("RGB", image.size, image.convert("RGB").tobytes(), buffer)
    return buffer.getvalue()


@st.composite
def mutated_images(draw: st.DrawFn) -> tuple[str, bytes]:
    kind = draw(st.sampled_from(sorted(images())))
    data = mutate(draw, images()[kind])
    if kind.startswith("png") and draw(st.booleans()):
        data = with_right_sums(data)  # so that the mutation gets past the first check
    return kind, data


def with_right_sums(data: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums that they should."""
    parts, start = [data[:8]], 8
    while start + 8 <= len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        chunk = data[start + 4 : start + 8 + length]
        parts.append(data[start : start + 4] + chunk + struct.pack(">I", zlib.crc32(chunk)))
        start += length + 12
    return b"".join(parts)


@pytest.fixture(scope="module")
def detector() -> MaskDetector:
    faces = load_face_detector(options.DEFAULT_FACE_DETECTOR, size=96)
    return MaskDetector(faces, MaskClassifier.load(ROOT / "mask_detector.onnx"))


@given(image=mutated_images())
@fuzz(few=400, many=20_000)
def test_mutated_images(image, folder, detector):
    """Whatever it holds, an image is either read, with its faces inside of it, or refused in one line."""
    kind, data = image
    path, records_path = folder / "image.jpg", folder / "records.jsonl"
    path.write_bytes(data)
    records_path.unlink(missing_ok=True)
    out, err = io.StringIO(), io.StringIO()
    with watched(), pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(options, "load_detector", lambda args, threads: detector)
        code = detect_mask_image.main(["-i", str(path), "--jsonl", str(records_path), "-o", str(folder / "out.png"), "-c", "0.1"])
    said = [line for line in err.getvalue().splitlines() if not line.startswith("[INFO]")]
    event(f"{kind.split()[0]}: {'read' if code == 0 else 'refused'}")
    if code == 0:
        assert said in ([], [f"[WARN] {path}: only the end marker of this JPEG is missing; it is read"])
        (record,) = map(json.loads, records_path.read_text().splitlines())
        assert all(0 <= f["box"][0] < f["box"][2] <= record["width"] for f in record["faces"])
        assert all(0 <= f["box"][1] < f["box"][3] <= record["height"] for f in record["faces"])
        assert all(0 <= f["confidence"] <= 1 and 0 <= f["probability"] <= 1 + 1e-6 for f in record["faces"])
    else:
        assert code == 1 and len(said) == 1 and said[0].startswith(f"error: {path}: ")
        assert not records_path.exists()


# Models


@cache
def models() -> dict[str, bytes]:
    """The networks, without their checksums' entries."""
    names = {"classifier": "mask_detector.onnx", "faces": "face_detector/masked_faces_ssd.int8.onnx"}
    entry = len(with_checksum(b""))
    return {kind: (ROOT / name).read_bytes()[:-entry] for kind, name in names.items()} | {"small": small_network()}


def small_network() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weights = {"w": np.full((8, 3, 3, 3), 0.01), "b": np.zeros(8), "d": np.full((8, 2), 0.1), "e": np.zeros(2)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "d", "e"], ["g"]),
        helper.make_node("Softmax", ["g"], ["y"], axis=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "small", [value("x", TensorProto.FLOAT, ["n", 3, 32, 32])], [value("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(proto, {METADATA_NAME: ModelInfo(("a", "b"), 32, 0.0).to_json()})
    return proto.SerializeToString()


@st.composite
def mutated_models(draw: st.DrawFn) -> tuple[str, bytes]:
    kind = draw(st.sampled_from(["small", "small", "classifier", "faces"]))
    data = mutate(draw, models()[kind])
    return kind, with_checksum(data) if HAS_ONNXRUNTIME and draw(st.integers(0, 9)) else data


@given(model=mutated_models())
@fuzz(few=60, many=2_000)
def test_mutated_models(model, folder):
    """Whatever a model's file holds, also with its checksum made right, it is loaded, or refused in one line."""
    kind, data = model
    path = folder / "model.onnx"
    path.write_bytes(data)
    with watched():
        for load in (MaskClassifier.load, load_face_detector):
            try:
                load(path)
                event(f"{kind}: loaded")
            except InputError as error:
                assert str(error).startswith(f"{path}: ") and str(error).isprintable()
                event(f"{kind}: refused")


@st.composite
def mutated_keras(draw: st.DrawFn) -> bytes:
    with zipfile.ZipFile(ROOT / "mask_detector.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from(sorted(parts)))
    parts[name] = mutate(draw, parts[name])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
        archive.comment = bytes(CHECKSUM_LENGTH)
    data = buffer.getvalue()[:-CHECKSUM_LENGTH]
    if draw(st.booleans()):
        data = mutate(draw, data)
    return data + checksum(data)


@pytest.mark.training
@given(data=mutated_keras())
@fuzz(few=3, many=100)
def test_mutated_keras_models(data, folder):
    pytest.importorskip("keras")
    path = folder / "model.keras"
    path.write_bytes(data)
    with watched():
        try:
            MaskClassifier.load(path)
            event("loaded")
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and str(error).isprintable()
            event("refused")


# Annotations

XML = b"""<?xml version="1.0"?><annotation><filename>a.jpg</filename><size><width>380</width></size>
<object><name>with_mask</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>110</xmax><ymax>120.5</ymax></bndbox></object>
<object><name>without_mask</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"""
DTD = b'<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
ODD = [b"&b;", b"&#0;", b"nan", b"inf", b"-1e400", b"<object/>", b"\0", b"]]>", b"<!--", b"\xff\xfe", b'<?xml encoding="utf-7"?>']


@st.composite
def mutated_annotations(draw: st.DrawFn) -> bytes:
    data = XML.replace(b"?>", b"?>" + DTD, 1) if draw(st.booleans()) else XML
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(ODD)) + data[at:]
    return mutate(draw, data) if draw(st.booleans()) else data


@pytest.mark.training
@given(data=mutated_annotations())
@fuzz(few=200, many=2_000)
def test_mutated_annotations(data, folder):
    """An annotation is read, all its numbers finite, or refused in one line; no entity is ever expanded."""
    dataset = pytest.importorskip("facemask.training.formats")
    for name in ("images", "annotations"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "images/a.jpg").touch()
    (folder / "annotations/a.xml").write_bytes(data)
    with watched():
        try:
            photos = dataset.read_annotated_photos(folder)
        except InputError as error:
            assert str(error).isprintable() and len(str(error)) < 1000
            event("refused")
            return
    event("read")
    assert not any("aaa" in label for label in photos[0].labels)
    assert np.isfinite(photos[0].boxes).all() and len(photos[0].labels) == len(photos[0].boxes)


# Kills


def test_killed_at_random_and_resumed(tmp_path):
    """A run that is killed again and again, and gone on with, tells in the end what an undisturbed one tells."""
    kills = 200 if MANY else 4
    for index in range(40):
        (tmp_path / "in").mkdir(exist_ok=True)
        name = "people" if index % 10 == 0 else "astronaut"
        shutil.copy(EXAMPLES / f"{name}.jpg", tmp_path / "in" / f"{index:02d}.jpg")
    (tmp_path / "in/bad.jpg").write_bytes(b"text")
    command = [sys.executable, str(ROOT / "detect_mask_image.py"), "-i", "in", "--no-show", "--resume"]

    def start(run: str) -> subprocess.Popen:
        outputs = ["--jsonl", f"{run}.jsonl", "--csv", f"{run}.csv", "-o", f"{run}_annotated"]
        return subprocess.Popen([*command, *outputs], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def outputs(run: str) -> dict[str, bytes]:
        files = [tmp_path / f"{run}.jsonl", tmp_path / f"{run}.csv", *sorted((tmp_path / f"{run}_annotated").iterdir())]
        return {file.name.removeprefix(run): file.read_bytes().replace(run.encode(), b"") for file in files}

    began = time.monotonic()
    with start("whole") as process:
        process.communicate(timeout=120)
    assert process.returncode == 1  # one image is bad
    lasts = time.monotonic() - began
    expected = outputs("whole")
    assert len(expected) == 42

    rng, done, runs = random.Random(0), 0, 0
    while done < kills:
        run = f"run{runs}"
        runs += 1
        while True:
            with start(run) as process:
                try:
                    errors = process.communicate(timeout=rng.uniform(0, 1.2 * lasts))[1]
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    done += 1
                    continue
            assert process.returncode == 1 and "Traceback" not in errors
            break
        assert outputs(run) == expected
        assert not list(tmp_path.glob("*.partial*"))
    if MANY:
        print(f"\n{done} kills in {runs} runs, which all ended with the same JSON lines, CSV and images as an undisturbed one")
