import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training  # needs scikit-learn and matplotlib
pytest.importorskip("sklearn")

from facemask.evaluation.metrics import (  # noqa: E402
    EvaluatedPhoto,
    calibration,
    find_ignored,
    label_metrics,
    match_faces,
    precision_recall,
    two_classes,
)
from facemask.evaluation.plots import plot_mistakes, plot_precision_recall, plot_reliability  # noqa: E402
from facemask.evaluation.report import (  # noqa: E402
    Mistake,
    annotated_metrics,
    class_folder_metrics,
    no_face_metrics,
    summary_table,
    worst_mistakes,
)
from facemask.training.dataset import AnnotatedPhoto  # noqa: E402
from facemask.training.formats import read_annotated_photos  # noqa: E402
from facemask.types import Detection  # noqa: E402
from tests.helpers import EXAMPLES  # noqa: E402

CLASSES = ("mask_weared_incorrect", "with_mask", "without_mask")
CERTAIN = dict(zip(CLASSES, np.eye(3), strict=True))


def detection(box, confidence, label, probability=1.0):
    return Detection(box, confidence, label, probability, {label: probability})


def photo(truth, detections, predicted=None, path="photo.jpg"):
    """`truth` is pairs of box and label; `predicted` the labels on those boxes, the true ones if omitted."""
    boxes, labels = [box for box, _ in truth], tuple(label for _, label in truth)
    probabilities = np.array([CERTAIN[label] for label in predicted or labels]).reshape(-1, 3)
    annotated = AnnotatedPhoto(Path(path), np.array(boxes, float).reshape(-1, 4), labels)
    return EvaluatedPhoto(annotated, probabilities, detections, 0.02, 0.01)


A, B, FAR = (0, 0, 20, 20), (40, 0, 60, 40), (100, 100, 120, 120)
TWO_FACES = [(A, "with_mask"), (B, "without_mask")]


@pytest.mark.parametrize(
    ("detections", "faces", "masks", "none"),
    [
        pytest.param([], 0, 0, 0, id="nothing found"),
        pytest.param([detection(A, 0.9, "with_mask"), detection(B, 0.8, "without_mask")], 1, 1, 1, id="all right"),
        pytest.param([detection(A, 0.9, "without_mask"), detection(B, 0.8, "without_mask")], 1, 0, 0.5, id="one label wrong"),
        pytest.param([detection(A, 0.9, "with_mask"), detection(A, 0.8, "with_mask")], 0.5, 1, 0, id="found twice"),
        pytest.param([detection(FAR, 0.9, "with_mask"), detection(A, 0.8, "with_mask")], 0.25, 0.5, 0, id="false positive first"),
        pytest.param([detection((0, 0, 20, 10), 0.9, "with_mask")], 0.5, 1, 0, id="IoU of exactly 0.5"),
        pytest.param([detection((0, 0, 20, 9), 0.9, "with_mask")], 0, 0, 0, id="IoU below 0.5"),
        pytest.param([detection(B, 0.9, "mask_weared_incorrect")], 0.5, 0, 1, id="worn wrong counts as none"),
    ],
)  # fmt: skip
def test_precision_recall(detections, faces, masks, none):
    photos = [photo(TWO_FACES, detections), photo([], [])]
    assert precision_recall(photos, ["face"], lambda label: "face")["face"].average_precision == pytest.approx(faces)
    curves = precision_recall(photos, ["with_mask", "without_mask"], two_classes)
    assert curves["with_mask"].average_precision == pytest.approx(masks)
    assert curves["without_mask"].average_precision == pytest.approx(none)


def test_annotated_metrics_leaves_a_class_without_true_faces_out_of_the_mean():
    found = [detection(A, 0.9, "with_mask"), detection(B, 0.8, "without_mask"), detection(FAR, 0.1, "mask_weared_incorrect")]
    metrics = annotated_metrics([photo(TWO_FACES, found)], CLASSES, 0.5)
    assert metrics["average_precision"]["3_classes"] == {
        "mask_weared_incorrect": None,
        "with_mask": pytest.approx(1),
        "without_mask": pytest.approx(1),
    }
    assert metrics["mean_average_precision"] == {"2_classes": pytest.approx(1), "3_classes": pytest.approx(1)}


def test_annotated_metrics_of_other_class_names():
    truth = AnnotatedPhoto(Path("photo.jpg"), np.array([A, B], float), ("bare", "covered"))
    found = [detection(A, 0.9, "bare"), detection(B, 0.8, "covered")]
    metrics = annotated_metrics([EvaluatedPhoto(truth, np.eye(2), found, 0.02, 0.01)], ("bare", "covered"), 0.5)
    assert metrics["labels_on_true_boxes"] == {"faces": 2, "right": 1.0, "balanced_2_classes": None, "macro_f1": 1.0}
    assert metrics["average_precision"].keys() == {"faces", "2_classes"}
    assert metrics["average_precision"]["2_classes"].keys() == {"bare", "covered"}


def test_precision_recall_ranks_by_confidence_times_probability():
    found = [detection(FAR, 0.9, "with_mask", 0.5), detection(A, 0.6, "with_mask", 0.9)]
    assert precision_recall([photo([(A, "with_mask")], found)], CLASSES, str)["with_mask"].average_precision == pytest.approx(1)


def test_a_detection_is_the_face_that_it_overlaps_most():
    """The second detection of the left face overlaps the right one by more than half, and still is a false positive."""
    left, right = (0, 0, 20, 20), (6, 0, 26, 20)
    found = [detection(left, 0.9, "with_mask"), detection((1, 0, 21, 20), 0.8, "with_mask")]
    match = match_faces([photo([(left, "with_mask"), (right, "with_mask")], found)], 0.5)
    assert (match.of_faces, match.false_positives) == ([[0, None]], [[1]])


def test_precision_at_each_recall():
    found = [detection(A, 0.9, "x"), detection(FAR, 0.8, "x"), detection(B, 0.7, "x")]
    (curve,) = precision_recall([photo(TWO_FACES, found)], ["face"], lambda label: "face").values()
    assert curve.precision.tolist() == [1.0] * 51 + [pytest.approx(2 / 3)] * 50
    assert curve.average_precision == pytest.approx((1 + 2 / 3) / 2)


def test_match_faces():
    found = [detection(FAR, 0.9, "with_mask"), detection(B, 0.8, "with_mask"), detection(A, 0.3, "with_mask")]
    photos = [photo([], [detection(A, 0.7, "with_mask")]), photo(TWO_FACES, found)]
    match = match_faces(photos, 0.5)
    assert match.of_faces == [[], [None, 1]]
    assert match.false_positives == [[0], [0]]
    assert match_faces(photos, 0.0).of_faces == [[], [2, 1]]


def test_label_metrics():
    true = np.array(["with_mask", "with_mask", "without_mask", "mask_weared_incorrect"], object)
    predicted = np.array(["with_mask", "without_mask", "without_mask", "without_mask"], object)
    metrics = label_metrics(true, predicted)
    assert metrics == {"faces": 4, "right": 0.5, "balanced_2_classes": 0.75, "macro_f1": pytest.approx((2 / 3 + 0.5 + 0) / 3)}
    assert label_metrics(true[:1], predicted[:1])["balanced_2_classes"] is None
    assert label_metrics(true[:0], predicted[:0]) == {"faces": 0, "right": None, "balanced_2_classes": None, "macro_f1": None}


def test_calibration():
    metrics = calibration(np.array([True, True, False, False]), np.array([0.95, 0.95, 0.95, 1.0]))
    assert metrics["expected_error"] == pytest.approx(abs(3.85 / 4 - 0.5))
    assert metrics["bins"] == [{"count": 4, "probability": pytest.approx(3.85 / 4), "right": 0.5}]
    assert calibration(np.array([], bool), np.array([])) == {"expected_error": None, "bins": []}


def ignoring(*boxes, truth=(), detections=()):
    """Return a photo with these boxes to be ignored."""
    plain = photo(list(truth), list(detections))
    return replace(plain, truth=replace(plain.truth, ignored=np.array(boxes, float)))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((0, 0, 20, 20), True, id="the ignored box"),
        pytest.param((0, 0, 20, 10), True, id="IoU of exactly 0.5"),
        pytest.param((15, 0, 25, 10), False, id="half of it in the ignored box"),
        pytest.param((14, 0, 24, 10), True, id="0.6 of it in the ignored box"),
        pytest.param((60, 60, 80, 80), False, id="elsewhere"),
        pytest.param((0, 0, 20, 8), True, id="wholly in the ignored box"),
        pytest.param((0, 21, 20, 41), False, id="beside"),
    ],
)
def test_find_ignored(box, expected):
    assert find_ignored([FAR, box], ignoring((0, 0, 20, 20)).truth).tolist() == [False, expected]


def test_find_ignored_is_not_a_detection_of_an_annotated_face():
    truth = ignoring((0, 0, 20, 20), truth=[((0, 0, 20, 18), "with_mask")]).truth
    assert not find_ignored([(0, 0, 20, 20)], truth).any()
    assert not find_ignored([(0, 0, 20, 20)], photo(TWO_FACES, []).truth).any()
    assert find_ignored([], truth).shape == (0,)


def test_ignored_detections_are_neither_right_nor_wrong():
    """The worst-placed ones: more confident than all others, of the rare class."""
    found = [detection(FAR, 0.95, "mask_weared_incorrect"), detection(A, 0.9, "with_mask"), detection(B, 0.8, "without_mask")]
    photos = [ignoring(FAR, truth=TWO_FACES, detections=found)]
    match = match_faces(photos, 0.5)
    assert (match.of_faces, match.false_positives, match.ignored) == ([[1, 2]], [[]], [[0]])
    metrics = annotated_metrics(photos, CLASSES, 0.5)
    assert (metrics["face_precision"], metrics["face_recall"], metrics["faces"]) == (1, 1, 2)
    assert metrics["face_average_precision"] == pytest.approx(1)
    assert metrics["face_calibration"]["expected_error"] == pytest.approx(0.15)
    counted = annotated_metrics([photo(TWO_FACES, found)], CLASSES, 0.5)
    assert counted["face_precision"] == pytest.approx(2 / 3)
    assert counted["face_average_precision"] == pytest.approx(2 / 3)


def test_iou_threshold_is_that_of_the_set():
    photos = [photo([(A, "with_mask")], [detection((0, 0, 20, 8), 0.9, "with_mask")])]
    loose, strict = (annotated_metrics(photos, CLASSES, 0.5, iou_threshold) for iou_threshold in (0.3, 0.5))
    assert (loose["face_recall"], strict["face_recall"]) == (1, 0)
    assert loose["mean_average_precision"]["2_classes"] == pytest.approx(1)
    assert strict["mean_average_precision"]["2_classes"] == 0
    assert worst_mistakes(photos, CLASSES, 0.5, 9, 0.3)["false negatives"] == []


def test_labels_at_any_confidence_and_at_the_threshold():
    found = [detection(A, 0.9, "with_mask"), detection(B, 0.1, "with_mask")]
    metrics = annotated_metrics([photo(TWO_FACES, found)], CLASSES, 0.5)
    assert metrics["labels_on_found_faces"]["faces"] == 1
    assert metrics["labels_on_faces_found_at_any_confidence"]["balanced_2_classes"] == 0.5


def test_no_face_metrics():
    detections = [[detection(A, 0.9, "x"), detection(B, 0.5, "x"), detection(B, 0.4, "x")], [], []]
    assert no_face_metrics(detections, 0.5) == {
        "photos": 3, "confidence": 0.5, "false_positives": 2, "false_positives_per_100_photos": pytest.approx(200 / 3),
    }  # fmt: skip


def test_class_folder_metrics_are_of_the_largest_face():
    small_and_large = [detection(A, 0.9, "with_mask"), detection(B, 0.6, "without_mask"), detection(FAR, 0.4, "with_mask")]
    metrics = class_folder_metrics(["b", "a", "b"], [small_and_large, [], [detection(A, 0.4, "with_mask")]], 0.5)
    assert metrics["labels_of_largest_face"] == {
        "a": {"photos": 1, "shares": {"no face": 1.0}},
        "b": {"photos": 2, "shares": {"without_mask": 0.5, "no face": 0.5}},
    }


def test_summary_table_has_one_row_per_set_and_class_folder():
    metrics = {
        "street": annotated_metrics([photo(TWO_FACES, [detection(A, 0.9, "with_mask")])], CLASSES, 0.5, 0.3),
        "nofaces": no_face_metrics([[detection(A, 0.9, "x")]] * 3 + [[]] * 5, 0.5),
        "faces": class_folder_metrics(["with_mask", "with_mask"], [[detection(A, 0.9, "without_mask")], []], 0.5),
    }
    assert summary_table(metrics)[2:] == [
        "| street | 1 | 2 | 0.500 (0.3) | 1.000 / 0.500 | 0.500 | 0.500 |  | 0.000 | 0.100 |  |  |",
        "| nofaces | 8 |  |  |  |  |  |  |  |  | 37.5 |  |",
        "| faces: Mask | 2 |  |  |  |  |  |  |  |  |  | No mask 50.0%, no face 50.0% |",
    ]


def test_annotated_metrics():
    photos = [photo(TWO_FACES, [detection(A, 0.9, "with_mask"), detection(FAR, 0.6, "with_mask")], ["with_mask", "with_mask"])]
    metrics = annotated_metrics(photos, CLASSES, 0.5)
    json.dumps(metrics, allow_nan=False)
    assert (metrics["photos"], metrics["faces"], metrics["face_precision"], metrics["face_recall"]) == (1, 2, 0.5, 0.5)
    assert metrics["labels_on_true_boxes"]["balanced_2_classes"] == 0.5
    assert metrics["labels_on_found_faces"] == {"faces": 1, "right": 1.0, "balanced_2_classes": None, "macro_f1": 1.0}
    assert [(group["from"], group["to"], group["faces"], group["found"]) for group in metrics["by_height"]] == [
        (0, 16, 0, 0), (16, 24, 1, 1), (24, 32, 0, 0), (32, 64, 1, 0), (64, None, 0, 0), (0, 24, 1, 1),
    ]  # fmt: skip
    assert metrics["confusion"]["rows_are_true"] == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert metrics["median_milliseconds_per_photo"] == 20 and metrics["milliseconds_per_face"] == 5


def test_worst_mistakes(tmp_path):
    path = EXAMPLES / "people.jpg"
    low = [detection(A, 0.9, "with_mask"), detection(FAR, 0.6, "with_mask"), detection((5, 90, 30, 110), 0.8, "with_mask")]
    mistakes = worst_mistakes([photo(TWO_FACES, low, ["with_mask", "with_mask"], path)], CLASSES, 0.5, 1)
    assert mistakes == {
        "wrong labels": [Mistake(path, B, "without_mask", "with_mask", 1.0)],
        "false positives": [Mistake(path, (5, 90, 30, 110), None, "with_mask", 0.8)],
        "false negatives": [Mistake(path, B, "without_mask", None, 0.0)],
    }
    plot_mistakes(tmp_path / "sheet.png", mistakes)
    plot_mistakes(tmp_path / "none.png", {"wrong labels": []})
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 1500


def test_plots(tmp_path):
    metrics = annotated_metrics([photo(TWO_FACES, [detection(A, 0.9, "with_mask")])], CLASSES, 0.5)
    plot_precision_recall(tmp_path / "curves.png", metrics)
    plot_reliability(tmp_path / "reliability.png", metrics["label_calibration"])
    assert cv2.imread(str(tmp_path / "curves.png")).shape[1] == 1500


@pytest.mark.shared
def test_agrees_with_score(shared, tmp_path):
    """The metrics and those of ../shared/tools/score.py, on true boxes that are moved, doubled and relabelled."""
    rng = np.random.default_rng(0)
    names = (shared / "photos/val.txt").read_text().split()
    photos, path = [], tmp_path / "found.jsonl"
    with path.open("w") as file:
        for truth in read_annotated_photos(shared / "photos", names):
            found = []
            for box, label in zip(truth.boxes.tolist() * 2, truth.labels * 2, strict=True):
                side = max(box[2] - box[0], box[3] - box[1])
                moved = np.add(box, rng.normal(0, 0.12 * side, 4)).tolist()
                label = label if rng.random() < 0.9 else str(rng.choice(CLASSES))
                if moved[2] > moved[0] and moved[3] > moved[1]:
                    found.append(detection(tuple(moved), rng.uniform(0.05, 1), label, rng.uniform(0.4, 1)))
            found.sort(key=lambda detection: -detection.confidence)
            photos.append(EvaluatedPhoto(truth, np.array([CERTAIN[label] for label in truth.labels]), found, 0.0, 0.0))
            faces = [{"box": d.box, "confidence": d.confidence, "label": d.label, "probability": d.probability} for d in found]
            print(json.dumps({"image": truth.path.name, "faces": faces}), file=file)
    command = [sys.executable, shared / "tools/score.py", shared / "photos", path, "--only", shared / "photos/val.txt"]
    scores = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    metrics = annotated_metrics(photos, CLASSES, 0.5)
    assert metrics["face_average_precision"] == pytest.approx(scores["face_AP50"], abs=0.002)
    assert metrics["face_precision"] == pytest.approx(scores["face_precision@0.5"], abs=0.002)
    assert metrics["face_recall"] == pytest.approx(scores["face_recall@0.5"], abs=0.002)
    for count in (2, 3):
        assert metrics["mean_average_precision"][f"{count}_classes"] == pytest.approx(scores[f"mAP50_{count}class"], abs=0.002)
