import re
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from facemask.errors import InputError
from facemask.models.mask_classifier import MaskClassifier
from facemask.models.model_file import CHECKSUM_LENGTH, ModelFile, checksum, with_checksum
from facemask.models.model_info import METADATA_NAME, ModelInfo
from facemask.models.onnx_session import open_with_opencv
from tests.helpers import CORRUPT, EXAMPLES, ROOT

MODEL = ROOT / "mask_detector.keras"
ONNX = MODEL.with_suffix(".onnx")
# Faces in examples/people.jpg as the detector finds them, and their labels. Those of the second column are left out.
PEOPLE = {
    (65, 55, 236, 262): "with_mask",
    (370, 380, 538, 551): "with_mask",
    (656, 79, 843, 309): "with_mask",
    (87, 434, 213, 591): "without_mask",
    (691, 406, 833, 589): "without_mask",
}


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    return cv2.imread(str(EXAMPLES / "people.jpg"))


@pytest.fixture
def copied_model(tmp_path):
    for suffix in (".keras", ".onnx"):
        shutil.copy(MODEL.with_suffix(suffix), tmp_path / f"model{suffix}")
    return tmp_path / "model.keras"


def test_classify_example_faces(people):
    classifier = MaskClassifier.load(MODEL)
    probabilities = classifier.classify(people, list(PEOPLE))
    assert probabilities.shape == (len(PEOPLE), len(classifier.info.labels))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert [classifier.info.labels[i] for i in probabilities.argmax(axis=1)] == list(PEOPLE.values())


def test_classify_in_batches_equals_one_by_one(people, monkeypatch):
    classifier = MaskClassifier.load(MODEL)
    together = classifier.classify(people, list(PEOPLE))
    monkeypatch.setattr(MaskClassifier, "BATCH_SIZE", 4)
    np.testing.assert_allclose(classifier.classify(people, list(PEOPLE)), together, atol=1e-5)


def test_classify_no_faces(people):
    classifier = MaskClassifier.load(MODEL)
    assert classifier.classify(people, []).shape == (0, len(classifier.info.labels))


def test_opencv_equals_onnxruntime(people, copied_model):
    pytest.importorskip("onnxruntime")
    classifier = MaskClassifier.load(copied_model.with_suffix(".onnx"))  # beside no int8 file
    assert classifier.backend == "onnxruntime on cpu"
    by_opencv = MaskClassifier(classifier.info, open_with_opencv(ONNX), "cv2.dnn")
    boxes = list(PEOPLE)
    np.testing.assert_allclose(by_opencv.classify(people, boxes), classifier.classify(people, boxes), atol=1e-3)


def test_load_without_onnxruntime_uses_opencv(people, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    classifier = MaskClassifier.load(MODEL)
    assert classifier.backend == "cv2.dnn"
    labels = classifier.classify(people, list(PEOPLE)).argmax(axis=1)
    assert [classifier.info.labels[i] for i in labels] == list(PEOPLE.values())


@pytest.mark.training
@pytest.mark.parametrize("state", ["missing", "broken", "of another model"])
def test_load_keras_where_onnx_does_not_fit(copied_model, tmp_path, people, caplog, state):
    pytest.importorskip("keras")
    onnx_path = copied_model.with_suffix(".onnx")
    if state == "missing":
        onnx_path.unlink()
    elif state == "broken":
        onnx_path.write_bytes(onnx_path.read_bytes()[:9999])
    else:
        with zipfile.ZipFile(copied_model, "a") as archive:
            archive.writestr("note.txt", "this changes the hash")
        whole = copied_model.read_bytes()[:-CHECKSUM_LENGTH]
        copied_model.write_bytes(whole + checksum(whole))
    classifier = MaskClassifier.load(copied_model)
    assert classifier.backend == "Keras"
    assert f"python -m facemask {copied_model} makes it" in caplog.text
    shutil.copy(ONNX, tmp_path / "float32.onnx")  # beside no int8 file
    expected = MaskClassifier.load(tmp_path / "float32.onnx").classify(people, list(PEOPLE))
    np.testing.assert_allclose(classifier.classify(people, list(PEOPLE)), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        pytest.param("none.keras", None, "no such file; give -m", id="missing"),
        pytest.param("model.h5", b"x", "not a .keras or .onnx file; give -m", id="suffix"),
        pytest.param("noise.keras", b"noise", CORRUPT, id="noise .keras"),
        pytest.param("noise.onnx", b"\x17noise" * 99, CORRUPT, id="noise .onnx"),
        pytest.param("empty.onnx", b"", CORRUPT, id="empty .onnx"),
        pytest.param("half.onnx", "half", CORRUPT, id="truncated .onnx"),
        pytest.param("faces.onnx", "faces", "not a model written by train_mask_detector.py", id="another network"),
    ],
)
def test_load_bad_file(tmp_path, name, data, message):
    path = tmp_path / name
    if data == "half":
        whole = MODEL.with_suffix(".onnx").read_bytes()
        data = whole[: len(whole) // 2]
    elif data == "faces":
        data = (ROOT / "face_detector" / "res10_300x300_ssd.onnx").read_bytes()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        MaskClassifier.load(path)
    assert str(error.value).startswith(f"{path}: ")


def test_load_reads_each_file_once(copied_model, monkeypatch):
    """The .keras is read for its metadata and checksum, the .onnx to run it."""
    paths, read_bytes = [], Path.read_bytes

    def record(path: Path) -> bytes:
        paths.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", record)
    MaskClassifier.load(copied_model)
    assert paths == [copied_model, copied_model.with_suffix(".onnx")]


def test_load_metadata_with_wrong_classes(tmp_path):
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(MODEL.with_suffix(".onnx"))
    wrong = ModelInfo(("a", "b", "c", "d", "e"), 128, 0.0)
    onnx.helper.set_model_props(proto, {METADATA_NAME: wrong.to_json()})
    (tmp_path / "wrong.onnx").write_bytes(with_checksum(proto.SerializeToString()))
    with pytest.raises(InputError, match=r"gives \(4,\) outputs for 5 classes; train it again"):
        MaskClassifier.load(tmp_path / "wrong.onnx")


BACKGROUND_INFO = ModelInfo(("with_mask", "background", "without_mask"), 32, 0.0)


def test_model_info_labels_are_without_the_background():
    assert BACKGROUND_INFO.labels == ("with_mask", "without_mask") and BACKGROUND_INFO.background == 1
    assert ModelInfo.from_json(BACKGROUND_INFO.to_json()) == BACKGROUND_INFO
    plain = ModelInfo(("a", "b"), 32, 0.0)
    assert plain.labels == plain.classes and plain.background is None


def test_model_info_of_one_label_and_a_background():
    with pytest.raises(ValueError):
        ModelInfo.from_json(ModelInfo(("background", "with_mask"), 32, 0.0).to_json())


def test_postprocess_renormalises_without_the_background():
    classifier = MaskClassifier(BACKGROUND_INFO, lambda images: images, "fake")
    outputs = np.array([[0.5, 0.0, 0.5], [0.2, 0.75, 0.05], [0.0, 1.0, 0.0]])
    probabilities, face_probabilities = classifier.postprocess(outputs)
    np.testing.assert_allclose(probabilities, [[0.5, 0.5], [0.8, 0.2], [0.5, 0.5]])
    np.testing.assert_allclose(face_probabilities, [1.0, 0.25, 0.0])


def test_postprocess_without_a_background_class_changes_nothing():
    outputs = np.array([[0.2, 0.8]], np.float32)
    probabilities, face_probabilities = MaskClassifier(ModelInfo(("a", "b"), 32, 0.0), lambda images: images, "fake").postprocess(
        outputs
    )
    np.testing.assert_array_equal(probabilities, outputs)
    assert face_probabilities.tolist() == [1.0]


def test_model_info_survives_json():
    info = ModelInfo(("with_mask", "without_mask"), 128, 0.15)
    assert ModelInfo.from_json(info.to_json()) == info


def test_model_info_of_shipped_model():
    info = ModelInfo.of_keras(ModelFile.read(MODEL))
    assert info.classes == ("background", "mask_weared_incorrect", "with_mask", "without_mask")


def with_metadata(model: bytes, old: bytes, new: bytes) -> bytes:
    """Return a model with other metadata of the same length, and its checksum."""
    entry = len(with_checksum(b""))
    assert model.count(old) == 1 and len(old) == len(new)
    return with_checksum(model[:-entry].replace(old, new))


@pytest.mark.parametrize("text", ['"margin": 1e9', '"margin": NaN', '"margin": "a"', '"margin": -.1'])
def test_load_metadata_that_cannot_be_used(tmp_path, text):
    path = tmp_path / "m.onnx"
    path.write_bytes(with_metadata(ONNX.read_bytes(), b'"margin": 0.0', text.encode()))
    with pytest.raises(InputError) as error:
        MaskClassifier.load(path)
    assert str(error.value) == f"{path}: not a model written by train_mask_detector.py; train it again"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"classes": ["a", "b"], "input_size": Infinity, "margin": 0}', "1" * 5000])
def test_model_info_of_other_json(text):
    with pytest.raises((ValueError, TypeError)):
        ModelInfo.from_json(text)


def test_load_network_that_loops(tmp_path):
    """Operators that no network of ours has are refused before the network runs: a loop may be endless."""
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(ONNX)
    proto.graph.node[3].op_type = "Loop"
    (tmp_path / "m.onnx").write_bytes(with_checksum(proto.SerializeToString()))
    with pytest.raises(InputError) as error:
        MaskClassifier.load(tmp_path / "m.onnx")
    assert str(error.value) == f"{tmp_path}/m.onnx: not a network of this project (it has 'Loop'); train it again"


def test_classify_when_the_network_fails_on_some_faces(people):
    classifier = MaskClassifier(ModelInfo(("a", "b"), 32, 0.0), lambda images: np.full((len(images), 2), np.nan), "fake")
    with pytest.raises(InputError, match="the mask classifier: gives no probabilities of some faces; train it again"):
        classifier.classify(people, list(PEOPLE))


def test_classify_when_the_network_takes_only_two_faces(people):
    def run(images: np.ndarray) -> np.ndarray:
        if len(images) != 2:
            raise RuntimeError("Got: 5 Expected: 2")
        return np.full((2, 2), 0.5)

    with pytest.raises(InputError, match="the mask classifier: cannot run on 5 faces at once; train it again"):
        MaskClassifier(ModelInfo(("a", "b"), 32, 0.0), run, "fake").classify(people, list(PEOPLE))
