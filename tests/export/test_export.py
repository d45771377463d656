"""Both networks in the formats of `python -m facemask export`: against the ONNX files, and the example that comes with them."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")

from facemask.__main__ import main
from facemask.models.center_face import CenterFaceDetector
from facemask.models.model_file import ModelFile
from facemask.models.onnx_session import open_onnx
from tests.helpers import EXAMPLES, PEOPLE, ROOT

FILES = {
    "face_detector": ROOT / "face_detector" / CenterFaceDetector.FILE_NAME,
    "mask_classifier": ROOT / "mask_detector.onnx",
}
SIZES = {"face_detector": 320, "mask_classifier": 128}
LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert", "tflite-int8": "ai_edge_litert"}
SLOW = [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.training]) for name in ("openvino", "litert", "tflite-int8")]
LABELS = ["with_mask", "without_mask", "with_mask", "mask_weared_incorrect"]  # of PEOPLE
LABELS += ["without_mask", "with_mask", "without_mask", "with_mask"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a function that returns the folder of a format, written once."""
    folders: dict[str, Path] = {}

    def export(name: str) -> Path:
        pytest.importorskip(LIBRARIES[name], reason=f"{name} needs the extra export")
        if name in ("litert", "tflite-int8"):
            pytest.importorskip("tensorflow")
        if name not in folders:
            folder = tmp_path_factory.mktemp("exported") / name
            assert main(["export", "--format", name, "-o", str(folder)]) == 0
            folders[name] = folder
        return folders[name]

    return export


def load(folder: Path, name: str):
    """Return the function of the example that runs a network."""
    source = (folder / "run.py").read_text(encoding="utf-8").partition("image = cv2.imread")[0]
    scope = {"__file__": str(folder / "run.py")}
    exec(source, scope)
    return scope["load"](name)


@pytest.mark.parametrize("network", FILES)
@pytest.mark.parametrize("name", ["onnx", *SLOW[:2]])
def test_export_computes_what_the_onnx_file_does(exported, name, network):
    folder, size = exported(name), SIZES[network]
    people = cv2.resize(cv2.imread(str(EXAMPLES / "people.jpg")), (size, size))
    run, _ = open_onnx(ModelFile.read(FILES[network]))
    for images in (people[None], np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)):
        expected = np.moveaxis(run(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)), 1, -1)
        np.testing.assert_allclose(load(folder, network)(images), expected, atol=1e-3)


@pytest.mark.parametrize("name", ["onnx", *SLOW])
def test_example_finds_the_faces(exported, name):
    command = [sys.executable, exported(name) / "run.py", EXAMPLES / "people.jpg"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        label, _, _, *box = line.replace(",", "").split()
        centre_x, centre_y = (int(box[0]) + int(box[2])) / 2, (int(box[1]) + int(box[3])) / 2
        (number,) = (n for n, (x1, y1, x2, y2) in enumerate(PEOPLE) if x1 < centre_x < x2 and y1 < centre_y < y2)
        np.testing.assert_allclose(list(map(int, box)), PEOPLE[number], atol=35)
        found[number] = label
    assert found.keys() == set(range(8))
    unsure = {1, 3}
    assert [found[n] for n in range(8) if n not in unsure] == [LABELS[n] for n in range(8) if n not in unsure]


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("network", FILES)
def test_int8_has_integers_alone(exported, network):
    folder = exported("tflite-int8")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / f"{network}.tflite"))  # with XNNPACK
    interpreter.allocate_tensors()
    size = SIZES[network]
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["dtype"], taken["dtype"]) == (np.uint8, np.int8) and tuple(given["shape"]) == (1, size, size, 3)
    assert {tensor["dtype"] for tensor in interpreter.get_tensor_details()} <= {np.uint8, np.int8, np.int32}


def test_onnx_export_has_fixed_sizes_and_a_readme(exported):
    import onnxruntime

    folder = exported("onnx")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "face_detector.onnx", "info.json", "mask_classifier.onnx", "run.py",
    ]  # fmt: skip
    session = onnxruntime.InferenceSession(folder / "face_detector.onnx")
    assert session.get_inputs()[0].shape == [1, 3, 320, 320] and session.get_outputs()[0].shape == [1, 5, 80, 80]
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    assert info["face_detector"]["size"] == 320
    assert info["mask_classifier"]["classes"] == ["background", "mask_weared_incorrect", "with_mask", "without_mask"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "320 x 320 px" in readme and "{" not in readme
    code = (folder / "run.py").read_text(encoding="utf-8")
    assert not {"LOADER", "RUNTIME"} & set(code.split()) and len(code.splitlines()) <= 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--size", "300"], "--size: 300 is not a multiple of 32; give one", id="size"),
        pytest.param(["-o", "."], "{here}: exists already; remove it, or give another folder", id="folder"),
        pytest.param(["-m", "none.keras"], "none.keras: no such file; give -m the model that was trained", id="model"),
        pytest.param(["-f", "none.onnx"], "none.onnx: no such face detector; give -f the folder face_detector/ or its .onnx file", id="face"),
        pytest.param(["-f", str(FILES["mask_classifier"])], f"{FILES['mask_classifier']}: not this project's own face detector; give -f the folder face_detector/", id="other network"),
        pytest.param(["-m", str(FILES["face_detector"])], f"{FILES['face_detector']}: not a model written by train_mask_detector.py; train it again", id="other model"),
    ],
)  # fmt: skip
def test_export_of_what_cannot_be_used(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--format", "onnx", "-o", "out", *arguments]) == 1
    assert capsys.readouterr().err == f"error: {message}\n".replace("{here}", str(tmp_path)) and list(tmp_path.iterdir()) == []


def test_keras_model_whose_onnx_is_of_another(tmp_path, capsys):
    for suffix in (".keras", ".onnx"):
        (tmp_path / f"m{suffix}").write_bytes((ROOT / f"mask_detector{suffix}").read_bytes())
    data = ModelFile.read(ROOT / "face_detector" / "masked_faces_ssd.onnx").data
    (tmp_path / "m.keras").write_bytes(data)  # any file of this project with its checksum
    assert main(["export", "--format", "onnx", "-o", str(tmp_path / "out"), "-m", str(tmp_path / "m.keras")]) == 1
    message = f"{tmp_path}/m.onnx: was made from another .keras file; python -m facemask {tmp_path}/m.keras makes it again"
    assert capsys.readouterr().err == f"error: {message}\n"
