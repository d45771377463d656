"""The last layer of a mask classifier fitted anew: labels follow the new photos, the background stays."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

pytestmark = pytest.mark.training
pytest.importorskip("keras")

from facemask.__main__ import main  # noqa: E402
from facemask.api import load_detector  # noqa: E402
from facemask.cli.run import DONE, FAILED  # noqa: E402
from facemask.errors import InputError  # noqa: E402
from facemask.models.face_detectors import load_face_detector  # noqa: E402
from facemask.models.keras_network import load_keras  # noqa: E402
from facemask.training import refit  # noqa: E402
from facemask.training.dataset import AnnotatedPhoto, ClassPhoto  # noqa: E402
from facemask.training.refit import FaceFeatures, fit_last_layer, label_boxes  # noqa: E402
from tests.helpers import EXAMPLES, PEOPLE, ROOT  # noqa: E402

MODEL = ROOT / "mask_detector.keras"
CLASSES, BACKGROUND = 4, 0


def faces_and_layer(seed: int = 0) -> tuple[FaceFeatures, np.ndarray, np.ndarray]:
    """Return random features of which a hidden layer gives the labels, and a layer near to it; every tenth has no label."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 20, size=(600, 20)).astype(np.float32)
    hidden, change = rng.normal(0, 0.05, size=(2, 20, CLASSES)).astype(np.float32)
    kernel = hidden + 0.5 * change
    labels = 1 + (features @ hidden)[:, 1:].argmax(axis=1)
    labels[::10] = -1
    return FaceFeatures(features, labels, (labels >= 0).astype(np.float32)), kernel, np.zeros(CLASSES, np.float32)


def test_labels_follow_the_faces_and_the_background_stays():
    faces, kernel, bias = faces_and_layer()
    before = softmax(faces.features @ kernel + bias, axis=1)
    new_kernel, new_bias = fit_last_layer(kernel, bias, faces, BACKGROUND)
    after = softmax(faces.features @ new_kernel + new_bias, axis=1)
    known = faces.labels >= 0

    def right(probabilities: np.ndarray) -> float:
        return float((1 + probabilities[known, 1:].argmax(axis=1) == faces.labels[known]).mean())

    assert right(before) < 0.7 and right(after) > 0.75
    assert np.abs(after[:, BACKGROUND] - before[:, BACKGROUND]).mean() < 0.04


def test_weights_decide_between_faces_that_disagree():
    faces, kernel, bias = faces_and_layer()
    twice = np.concatenate([faces.features] * 2)
    labels = np.concatenate([np.full(len(faces.labels), 1), np.full(len(faces.labels), 2)])
    for weights, wins in (((1.0, 9.0), 2), ((9.0, 1.0), 1)):
        both = FaceFeatures(twice, labels, np.repeat(weights, len(faces.labels)).astype(np.float32))
        new_kernel, new_bias = fit_last_layer(kernel, bias, both, None)
        chosen = (faces.features @ new_kernel + new_bias).argmax(axis=1)
        assert (chosen == wins).mean() > 0.9


def test_few_faces_change_the_layer_little(monkeypatch):
    faces, kernel, bias = faces_and_layer()
    few = FaceFeatures(faces.features[:8], faces.labels[:8], faces.weights[:8])

    def change() -> float:
        return float(np.abs(fit_last_layer(kernel, bias, few, None)[0] - kernel).max())

    changes = [change()]
    monkeypatch.setattr(refit, "RIDGE", 0.0)
    changes.append(change())
    assert changes[0] < 0.5 * changes[1]


def test_faces_have_the_weights_of_folder_and_class(tmp_path):
    for number, name in enumerate(("obama.jpg", "obama_mask.jpg")):
        shutil.copy(EXAMPLES / name, tmp_path / f"{number}.jpg")
    photos = [(ClassPhoto(tmp_path / "0.jpg", "without_mask"), 2.0)]
    detector, network = load_face_detector(ROOT / "face_detector"), load_keras(MODEL)
    faces = refit.find_faces(photos, [tmp_path / "1.jpg"], detector, network, {"without_mask": 3.0})
    assert faces.labels.tolist().count(network.info.classes.index("without_mask")) == 1
    assert sorted(faces.weights.tolist())[-1] == 6.0 and sorted(faces.weights.tolist())[-2] == 0.0
    assert len(faces.features) == len(faces.labels) >= 2
    with pytest.raises(InputError, match="no face with a label"):  # the background has no labels to learn
        refit.find_faces([(ClassPhoto(tmp_path / "0.jpg", "background"), 1.0)], [], detector, network, {})


def test_a_model_without_background_is_fitted_too():
    faces, kernel, bias = faces_and_layer()
    fitted = fit_last_layer(kernel[:, 1:], bias[1:], FaceFeatures(faces.features, faces.labels - 1, faces.weights), None)
    known = faces.labels >= 0
    chosen = (faces.features @ fitted[0] + fitted[1]).argmax(axis=1)
    assert (chosen[known] == faces.labels[known] - 1).mean() > 0.8


def test_boxes_of_detection_get_the_labels_of_the_annotation():
    annotated = AnnotatedPhoto(Path("a.jpg"), np.array([[0, 0, 20, 20], [50, 50, 55, 55]], float), ("bare", "masked"))
    found = [(1, 1, 21, 21), (80, 80, 99, 99)]
    assert list(label_boxes(found, annotated)) == [(found[0], "bare"), (found[1], ""), ([0, 0, 20, 20], "bare")]  # one is tiny
    assert list(label_boxes(found, ClassPhoto(Path("a.jpg"), "bare"))) == [(found[0], "bare"), (found[1], "")]
    assert list(label_boxes(found, None)) == [(found[0], ""), (found[1], "")]
    assert list(label_boxes([], ClassPhoto(Path("a.jpg"), "bare"))) == []


def test_refit_changes_a_label_and_no_feature(tmp_path, capfd):
    """The second face of the picture is annotated as one with a mask, though it has none, and counts much."""
    for part in ("images", "annotations"):
        (tmp_path / "photos" / part).mkdir(parents=True)
    shutil.copy(EXAMPLES / "people.jpg", tmp_path / "photos" / "images")
    (tmp_path / "photos" / "images" / "cut.jpg").write_bytes((EXAMPLES / "people.jpg").read_bytes()[:30])
    box = "<object><name>with_mask</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    for name in ("people", "cut"):
        (tmp_path / "photos" / "annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>1200</width><height>630</height></size>"
            f"{box.format(*PEOPLE[1])}</annotation>"
        )
    new = tmp_path / "new.keras"
    (tmp_path / "others").mkdir()
    shutil.copy(EXAMPLES / "obama.jpg", tmp_path / "others")
    command = ["--faces", f"{tmp_path / 'photos'}=5", "--unlabelled", str(tmp_path / "others"), "--class-weight", "with_mask=2"]
    assert main(["refit", str(MODEL), *command, "-m", str(new)]) == DONE
    message = capfd.readouterr().err
    counts = re.search(
        r"2 faces with labels \(0 background, 0 mask_weared_incorrect, 2 with_mask, 0 without_mask\), (\d+) ", message
    )
    assert int(counts[1]) >= len(PEOPLE) - 1 + 1
    assert "1 of 3 photos not used: cannot be read" in message
    before, after = load_keras(MODEL), load_keras(new)
    for ours, theirs in zip(after.backbone.get_weights(), before.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    import cv2

    image = cv2.imread(str(EXAMPLES / "people.jpg"))
    probabilities = [load_detector(model=path).classifier.classify(image, [PEOPLE[1]])[0] for path in (MODEL, new)]
    masked = before.info.labels.index("with_mask")
    assert probabilities[0][masked] < 0.5 < probabilities[1][masked]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--faces", "{folder}"], "dataset: classes that the model does not have (hat); --rename them"),
        (["--faces", "{folder}", "--rename", "hat=with_mask"], "--faces: no face with a label was found"),
        (["--faces", "{folder}", "--class-weight", "hat=2"], "--class-weight hat: the model does not have this class; it has "),
    ],
)
def test_refit_of_photos_that_do_not_fit(tmp_path, capsys, arguments, message):
    (tmp_path / "photos" / "hat").mkdir(parents=True)
    import cv2

    cv2.imwrite(str(tmp_path / "photos" / "hat" / "grey.png"), np.full((99, 99, 3), 127, np.uint8))
    filled = [argument.format(folder=tmp_path / "photos") for argument in arguments]
    assert main(["refit", str(MODEL), *filled, "-m", str(tmp_path / "new.keras")]) == FAILED
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "new.keras").exists()
