import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector
from facemask.models.face_detectors import choose_face_detector, load_face_detector
from facemask.models.int8 import int8_file, runs_int8
from facemask.models.model_file import checksum
from facemask.models.res10 import Res10Detector
from tests.helpers import CORRUPT, ROOT

FOLDER = ROOT / "face_detector"
ANOTHER = b"another" + checksum(b"another")  # a model file, as far as its checksum tells


def test_load_prefers_ours_in_a_folder(tmp_path):
    assert isinstance(load_face_detector(FOLDER), CenterFaceDetector)
    shutil.copy(FOLDER / Res10Detector.FILE_NAME, tmp_path)
    assert isinstance(load_face_detector(tmp_path), Res10Detector)


def test_load_identifies_files_by_their_content(tmp_path):
    shutil.copy(FOLDER / CenterFaceDetector.FILE_NAME, tmp_path / Res10Detector.FILE_NAME)
    detector = load_face_detector(tmp_path, size=320, tiles=True)
    assert isinstance(detector, CenterFaceDetector)
    assert (detector.size, detector.tiles) == (320, True)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        pytest.param({23}, True, id="x86 with VNNI"),
        pytest.param({10, 11, 13}, False, id="x86 with AVX and AVX2"),
        pytest.param({100, 101, 102}, True, id="ARM64 with dot products, as a Raspberry Pi 5"),
        pytest.param({100}, False, id="ARM64 without, as a Raspberry Pi 4"),
    ],
)
def test_runs_int8_where_sums_are_exact_and_fast(monkeypatch, features, expected):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(cv2, "checkHardwareSupport", lambda feature: feature in features)
    assert runs_int8() == expected
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not runs_int8()


@pytest.mark.parametrize(
    ("change", "chosen", "warns"),
    [
        pytest.param({}, ".int8.onnx", False, id="int8"),
        pytest.param({"runs_int8": False}, ".onnx", False, id="not on this machine"),
        pytest.param({"float32": ANOTHER}, ".onnx", True, id="made from another file"),
        pytest.param({"int8": b"noise"}, ".onnx", True, id="corrupt"),
    ],
)
def test_choose_face_detector(tmp_path, monkeypatch, caplog, change, chosen, warns):
    files = tmp_path / CenterFaceDetector.FILE_NAME, int8_file(tmp_path / CenterFaceDetector.FILE_NAME)
    for file, name in zip(files, ("float32", "int8"), strict=True):
        file.write_bytes(change.get(name, (FOLDER / file.name).read_bytes()))
    monkeypatch.setattr("facemask.models.int8.runs_int8", lambda: change.get("runs_int8", True))
    assert choose_face_detector(tmp_path).path == files[0].with_suffix(chosen)
    assert [record.message for record in caplog.records] == warns * [
        f"{files[1]}: not used, because it was not made from {files[0].name}; python -m face_detector.quantize makes it again"
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        pytest.param(
            "none.onnx", None, "no such face detector; give -f the folder face_detector/ or its .onnx file", id="missing"
        ),
        pytest.param(
            "noise.onnx",
            b"\x17noise" * 999,
            CORRUPT,
            id="noise",
        ),
        pytest.param("half.onnx", "half", CORRUPT, id="truncated"),
        pytest.param("empty.onnx", b"", CORRUPT, id="empty"),
        pytest.param(
            "mask_detector.onnx",
            "model",
            "not a face detector of this project; give -f the folder face_detector/",
            id="another network",
        ),
    ],
)
def test_load_bad_file(tmp_path: Path, name, data, message):
    path = tmp_path / name
    if data == "half":
        whole = (FOLDER / Res10Detector.FILE_NAME).read_bytes()
        data = whole[: len(whole) // 2]
    elif data == "model":
        data = (ROOT / "mask_detector.onnx").read_bytes()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError) as error:
        load_face_detector(path)
    assert str(error.value) == f"{path}: {message}"


def test_load_folder_without_detector(tmp_path):
    with pytest.raises(InputError) as error:
        load_face_detector(tmp_path)
    path = tmp_path / CenterFaceDetector.FILE_NAME
    assert str(error.value) == f"{path}: no such face detector; give -f the folder face_detector/ or its .onnx file"


def test_load_res10_with_a_size():
    path = FOLDER / Res10Detector.FILE_NAME
    with pytest.raises(InputError) as error:
        load_face_detector(path, size=640)
    assert str(error.value) == f"{path}: the res10 SSD runs on 300x300 px and no other size; omit --detector-size"


def test_detect_with_res10_at_another_size(astronaut):
    with pytest.raises(InputError) as error:
        load_face_detector(FOLDER / Res10Detector.FILE_NAME).detect(astronaut, size=640)
    assert str(error.value) == (
        f"{Res10Detector.FILE_NAME}: the res10 SSD runs on 300x300 px and no other size; omit --detector-size"
    )


def test_every_detector_finds_the_astronaut(astronaut):
    for name in (CenterFaceDetector.FILE_NAME, Res10Detector.FILE_NAME):
        (face,) = load_face_detector(FOLDER / name).detect(astronaut)
        np.testing.assert_allclose(face.box, (142, 60, 237, 178), atol=20)
