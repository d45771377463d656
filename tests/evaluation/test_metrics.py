import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training  # needs scikit-learn, matplotlib and pycocotools
pytest.importorskip("pycocotools")

import evaluate_mask_detector  # noqa: E402
from facemask.evaluation.metrics import EvaluatedPhoto, calibration, label_figures, match_faces, rank, two_classes  # noqa: E402
from facemask.evaluation.plots import plot_mistakes, plot_precision_recall, plot_reliability  # noqa: E402
from facemask.evaluation.report import Mistake, report, worst_mistakes  # noqa: E402
from facemask.training.dataset import AnnotatedPhoto, read_annotated_photos  # noqa: E402
from facemask.types import Detection  # noqa: E402
from tests.helpers import EXAMPLES  # noqa: E402

CLASSES = ("mask_weared_incorrect", "with_mask", "without_mask")
CERTAIN = dict(zip(CLASSES, np.eye(3), strict=True))


def detection(box, confidence, label, probability=1.0):
    return Detection(box, confidence, label, probability, {label: probability})


def photo(truth, detections, predicted=None, path="photo.jpg"):
    """`truth` is pairs of box and label; `predicted` the labels on those boxes, the true ones where left away."""
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
        pytest.param([detection(FAR, 0.9, "with_mask"), detection(A, 0.8, "with_mask")], 0.25, 0.5, 0, id="false alarm first"),
        pytest.param([detection((0, 0, 20, 10), 0.9, "with_mask")], 0.5, 1, 0, id="overlap of exactly a half"),
        pytest.param([detection((0, 0, 20, 9), 0.9, "with_mask")], 0, 0, 0, id="overlap below a half"),
        pytest.param([detection(B, 0.9, "mask_weared_incorrect")], 0.5, 0, 1, id="worn wrong counts as none"),
    ],
)  # fmt: skip
def test_rank(detections, faces, masks, none):
    photos = [photo(TWO_FACES, detections), photo([], [])]
    assert rank(photos, ["face"], lambda label: "face")["face"].average_precision == pytest.approx(faces, abs=1e-3)
    rankings = rank(photos, ["with_mask", "without_mask"], two_classes)
    assert rankings["with_mask"].average_precision == pytest.approx(masks, abs=1e-3)
    assert rankings["without_mask"].average_precision == pytest.approx(none, abs=1e-3)


def test_report_leaves_a_class_without_true_faces_out_of_the_mean():
    found = [detection(A, 0.9, "with_mask"), detection(B, 0.8, "without_mask"), detection(FAR, 0.1, "mask_weared_incorrect")]
    figures = report([photo(TWO_FACES, found)], CLASSES, 0.5)
    assert figures["average_precision"]["3_classes"] == {
        "mask_weared_incorrect": None,
        "with_mask": pytest.approx(1),
        "without_mask": pytest.approx(1),
    }
    assert figures["mean_average_precision"] == {"2_classes": pytest.approx(1), "3_classes": pytest.approx(1)}


def test_report_of_other_class_names():
    truth = AnnotatedPhoto(Path("photo.jpg"), np.array([A, B], float), ("bare", "covered"))
    found = [detection(A, 0.9, "bare"), detection(B, 0.8, "covered")]
    figures = report([EvaluatedPhoto(truth, np.eye(2), found, 0.02, 0.01)], ("bare", "covered"), 0.5)
    assert figures["labels_on_true_boxes"] == {"faces": 2, "right": 1.0, "balanced_2_classes": None, "macro_f1": 1.0}
    assert figures["average_precision"].keys() == {"faces", "2_classes"}
    assert figures["average_precision"]["2_classes"].keys() == {"bare", "covered"}


def test_rank_orders_by_confidence_times_probability():
    found = [detection(FAR, 0.9, "with_mask", 0.5), detection(A, 0.6, "with_mask", 0.9)]
    assert rank([photo([(A, "with_mask")], found)], CLASSES, str)["with_mask"].average_precision == pytest.approx(1)


def test_match_faces():
    found = [detection(FAR, 0.9, "with_mask"), detection(B, 0.8, "with_mask"), detection(A, 0.3, "with_mask")]
    photos = [photo([], [detection(A, 0.7, "with_mask")]), photo(TWO_FACES, found)]
    match = match_faces(photos, 0.5)
    assert match.of_truth == [[], [None, 1]]
    assert match.false_alarms == [[0], [0]]
    assert match_faces(photos, 0.0).of_truth == [[], [2, 1]]


def test_label_figures():
    true = np.array(["with_mask", "with_mask", "without_mask", "mask_weared_incorrect"], object)
    predicted = np.array(["with_mask", "without_mask", "without_mask", "without_mask"], object)
    figures = label_figures(true, predicted)
    assert figures == {"faces": 4, "right": 0.5, "balanced_2_classes": 0.75, "macro_f1": pytest.approx((2 / 3 + 0.5 + 0) / 3)}
    assert label_figures(true[:1], predicted[:1])["balanced_2_classes"] is None
    assert label_figures(true[:0], predicted[:0]) == {"faces": 0, "right": None, "balanced_2_classes": None, "macro_f1": None}


def test_calibration():
    true = np.array(["a", "a", "a", "b"])
    figures = calibration(true, np.array(["a", "a", "b", "b"]), np.array([0.95, 0.95, 0.95, 1.0]))
    assert figures["expected_error"] == pytest.approx(abs(3.85 / 4 - 0.75))
    assert figures["bins"] == [{"faces": 4, "probability": pytest.approx(3.85 / 4), "right": 0.75}]


def test_report():
    photos = [photo(TWO_FACES, [detection(A, 0.9, "with_mask"), detection(FAR, 0.6, "with_mask")], ["with_mask", "with_mask"])]
    figures = report(photos, CLASSES, 0.5)
    json.dumps(figures, allow_nan=False)
    assert (figures["photos"], figures["faces"], figures["face_precision"], figures["face_recall"]) == (1, 2, 0.5, 0.5)
    assert figures["labels_on_true_boxes"]["balanced_2_classes"] == 0.5
    assert figures["labels_on_found_faces"] == {"faces": 1, "right": 1.0, "balanced_2_classes": None, "macro_f1": 1.0}
    assert [(group["from"], group["to"], group["faces"], group["found"]) for group in figures["by_height"]] == [
        (0, 16, 0, 0), (16, 24, 1, 1), (24, 32, 0, 0), (32, 64, 1, 0), (64, None, 0, 0), (0, 24, 1, 1),
    ]  # fmt: skip
    assert figures["confusion"]["rows_are_true"] == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert figures["milliseconds_a_photo_median"] == 20 and figures["milliseconds_a_face"] == 5


def test_worst_mistakes(tmp_path):
    path = EXAMPLES / "people.jpg"
    low = [detection(A, 0.9, "with_mask"), detection(FAR, 0.6, "with_mask"), detection((5, 90, 30, 110), 0.8, "with_mask")]
    mistakes = worst_mistakes([photo(TWO_FACES, low, ["with_mask", "with_mask"], path)], CLASSES, 0.5, 1)
    assert mistakes == {
        "labels wrong": [Mistake(path, B, "without_mask", "with_mask", 1.0)],
        "false alarms": [Mistake(path, (5, 90, 30, 110), None, "with_mask", 0.8)],
        "faces not found": [Mistake(path, B, "without_mask", None, 0.0)],
    }
    plot_mistakes(tmp_path / "sheet.png", mistakes)
    plot_mistakes(tmp_path / "none.png", {"labels wrong": []})
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 1500


def test_plots(tmp_path):
    figures = report([photo(TWO_FACES, [detection(A, 0.9, "with_mask")])], CLASSES, 0.5)
    plot_precision_recall(tmp_path / "curves.png", figures)
    plot_reliability(tmp_path / "reliability.png", figures["calibration"])
    assert cv2.imread(str(tmp_path / "curves.png")).shape[1] == 1500


@pytest.mark.shared
def test_agrees_with_score(shared, tmp_path):
    """pycocotools' figures and those of ../shared/tools/score.py, on true boxes that are moved, doubled and relabelled."""
    rng = np.random.default_rng(0)
    names = (shared / "photos/val.txt").read_text().split()
    photos, path = [], tmp_path / "found.jsonl"
    with path.open("w") as file:
        for truth in read_annotated_photos(shared / "photos", names):
            found = []
            for box, label in zip(truth.boxes.tolist() * 2, truth.labels * 2, strict=True):
                side = max(box[2] - box[0], box[3] - box[1])
                moved = np.add(box, rng.normal(0, 0.12 * side, 4)).round().tolist()
                label = label if rng.random() < 0.9 else str(rng.choice(CLASSES))
                if moved[2] > moved[0] and moved[3] > moved[1]:
                    found.append(detection(tuple(moved), rng.uniform(0.05, 1), label, rng.uniform(0.4, 1)))
            found.sort(key=lambda detection: -detection.confidence)
            photos.append(EvaluatedPhoto(truth, np.array([CERTAIN[label] for label in truth.labels]), found, 0.0, 0.0))
            faces = [{"box": d.box, "confidence": d.confidence, "label": d.label, "probability": d.probability} for d in found]
            print(json.dumps({"image": truth.path.name, "faces": faces}), file=file)
    command = [sys.executable, shared / "tools/score.py", shared / "photos", path, "--only", shared / "photos/val.txt"]
    scores = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    figures = report(photos, CLASSES, 0.5)
    assert figures["face_average_precision"] == pytest.approx(scores["face_AP50"], abs=0.005)
    assert figures["face_precision"] == pytest.approx(scores["face_precision@0.5"], abs=0.005)
    assert figures["face_recall"] == pytest.approx(scores["face_recall@0.5"], abs=0.005)
    for count in (2, 3):
        assert figures["mean_average_precision"][f"{count}_classes"] == pytest.approx(scores[f"mAP50_{count}class"], abs=0.005)


@pytest.fixture
def annotated(tmp_path):
    """One photo, a face of it annotated, and one photo without a face."""
    folder = tmp_path / "photos"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    cv2.imwrite(str(folder / "images/people.png"), cv2.imread(str(EXAMPLES / "people.jpg")))
    cv2.imwrite(str(folder / "images/empty.png"), np.full((90, 120, 3), 200, np.uint8))
    box = "<bndbox><xmin>65</xmin><ymin>55</ymin><xmax>236</xmax><ymax>262</ymax></bndbox>"
    people = f"<annotation><object><name>with_mask</name>{box}</object></annotation>"
    (folder / "annotations/people.xml").write_text(people)
    (folder / "annotations/empty.xml").write_text("<annotation/>")
    return folder


def test_evaluate(annotated, tmp_path, capsys):
    output = tmp_path / "report"
    assert evaluate_mask_detector.main(["-d", str(annotated), "-o", str(output)]) == 0
    names = ["mistakes.png", "precision_recall.png", "reliability.png", "report.json", "report.md"]
    assert sorted(path.name for path in output.iterdir()) == names
    figures = json.loads((output / "report.json").read_text())
    assert (figures["photos"], figures["faces"], figures["face_recall"], figures["face_precision"]) == (2, 1, 1.0, 0.125)
    out = capsys.readouterr().out
    assert out == (output / "report.md").read_text()
    assert "# mask_detector.keras and face_detector on 2 photos, 1 faces\n" in out
    assert "| face precision / recall at confidence 0.5 | 0.125 / 1.000 |\n" in out
    assert "| 64 and more | 1 | 100.0% |  |  |\n" in out


def test_evaluate_goes_on_after_a_broken_photo(annotated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (annotated / "images/empty.png").write_bytes(b"noise")
    assert evaluate_mask_detector.main(["-d", "photos"]) == 1
    assert "[WARN] left out: photos/images/empty.png: not a picture, or a broken one" in capsys.readouterr().err
    assert json.loads(Path("evaluation/report.json").read_text())["photos"] == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("<xmin>65</xmin>", "<xmin>1300</xmin>", "left out: photos/images/people.png: an annotated box is empty or outside the photo; mend the annotation", id="box outside"),
        pytest.param("<xmax>236</xmax>", "<xmax>65</xmax>", "left out: photos/images/people.png: an annotated box is empty or outside the photo; mend the annotation", id="box empty"),
    ],
)  # fmt: skip
def test_evaluate_leaves_out_a_photo_with_a_bad_box(annotated, tmp_path, monkeypatch, capsys, old, new, message):
    monkeypatch.chdir(tmp_path)
    broken, good = annotated / "annotations/people.xml", annotated / "annotations/empty.xml"
    good.write_text(broken.read_text().replace("<xmax>236", "<xmax>100").replace("<ymax>262", "<ymax>80"))
    broken.write_text(broken.read_text().replace(old, new))
    assert evaluate_mask_detector.main(["-d", "photos"]) == 1
    assert f"[WARN] {message}\n" in capsys.readouterr().err


def test_evaluate_tells_of_names_and_classes_that_it_does_not_know(annotated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    annotation = annotated / "annotations/people.xml"
    annotation.write_text(annotation.read_text().replace("with_mask", "visor"))
    Path("some.txt").write_text("people\nnobody\n")
    assert evaluate_mask_detector.main(["-d", "photos", "--only", "some.txt"]) == 0
    error = capsys.readouterr().err
    assert "[WARN] some.txt lists 2 photos, 1 of them are in photos\n" in error
    assert (
        f"[WARN] {evaluate_mask_detector.options.DEFAULT_MODEL} does not know visor: such faces count as labelled wrong\n"
        in error
    )
    assert json.loads(Path("evaluation/report.json").read_text())["labels_on_true_boxes"]["right"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-d", "none"], "error: none: no annotations/ in it; give a folder of images/ with Pascal VOC annotations/", id="no folder"),
        pytest.param(["-d", "photos", "--only", "none.txt"], "error: none.txt: cannot be read", id="no list"),
        pytest.param(["-d", "photos", "--only", "strangers.txt"], "error: photos: has none of the 1 photos listed; list names without suffix, one per line", id="none of the list"),
        pytest.param(["-d", "photos", "-o", "taken"], "error: taken/report.md: is a folder; give a file name", id="output name is a folder"),
        pytest.param(["-d", "photos", "-m", "none.keras"], "error: none.keras: no such file; give -m the model that train_mask_detector.py wrote", id="no model"),
        pytest.param(["-d", "photos", "-o", "photos/images/people.png"], "error: photos/images/people.png: cannot make this folder (File exists); choose another place", id="output is a file"),
    ],
)  # fmt: skip
def test_bad_input(annotated, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("strangers.txt").write_text("people.png\n")
    Path("taken/report.md").mkdir(parents=True)
    assert evaluate_mask_detector.main(arguments) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(error) == 1 and error[0].startswith(message)
