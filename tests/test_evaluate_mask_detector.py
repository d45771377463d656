import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training  # needs scikit-learn and matplotlib
pytest.importorskip("sklearn")

import evaluate_mask_detector  # noqa: E402
from facemask.evaluation.sets import Kind, read_set, set_names  # noqa: E402
from tests.helpers import EXAMPLES  # noqa: E402

OBJECT = """<object><name>{}</name>
<bndbox><xmin>65</xmin><ymin>55</ymin><xmax>236</xmax><ymax>262</ymax></bndbox></object>"""


@pytest.fixture
def annotated(tmp_path):
    """One photo, a face of it annotated, and one photo without a face."""
    folder = tmp_path / "photos"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    cv2.imwrite(str(folder / "images/people.png"), cv2.imread(str(EXAMPLES / "people.jpg")))
    cv2.imwrite(str(folder / "images/empty.png"), np.full((90, 120, 3), 200, np.uint8))
    (folder / "annotations/people.xml").write_text(f"<annotation>{OBJECT.format('with_mask')}</annotation>")
    (folder / "annotations/empty.xml").write_text("<annotation/>")
    return folder


def test_evaluate(annotated, tmp_path, capsys):
    output = tmp_path / "new" / "report"  # which is made
    assert evaluate_mask_detector.main(["-d", str(annotated), "-o", str(output)]) == 0
    names = ["mistakes.png", "precision_recall.png", "reliability.png", "report.json", "report.md"]
    assert sorted(path.name for path in output.iterdir()) == names
    figures = json.loads((output / "report.json").read_text())["sets"]["photos"]
    assert (figures["photos"], figures["faces"], figures["face_recall"], figures["face_precision"]) == (2, 1, 1.0, 0.125)
    out = capsys.readouterr().out
    assert out == (output / "report.md").read_text()
    assert "# mask_detector.keras and face_detector\n" in out
    assert "\n| photos | 2 | 1 | " in out
    assert "## photos: 2 photos, 1 faces\n" in out
    assert "| face precision / recall at confidence 0.5 | 0.125 / 1.000 |\n" in out
    assert "| 64 and more | 1 | 100.0% |  |  |\n" in out


def test_evaluate_continues_after_a_corrupt_photo(annotated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (annotated / "images/empty.png").write_bytes(b"noise")
    assert evaluate_mask_detector.main(["-d", "photos"]) == 1
    assert "[WARN] skipped: photos/images/empty.png: not a " in (error := capsys.readouterr().err)
    assert "[WARN] photos: 1 of 2 photos were skipped\n" in error
    assert json.loads(Path("evaluation/report.json").read_text())["sets"]["photos"]["photos"] == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("<xmin>65</xmin>", "<xmin>1300</xmin>", "skipped: photos/images/people.png: an annotated box is empty or outside the photo; fix the annotation", id="box outside"),
        pytest.param("<xmax>236</xmax>", "<xmax>65</xmax>", "skipped: photos/images/people.png: an annotated box is empty or outside the photo; fix the annotation", id="box empty"),
    ],
)  # fmt: skip
def test_evaluate_skips_a_photo_with_a_bad_box(annotated, tmp_path, monkeypatch, capsys, old, new, message):
    monkeypatch.chdir(tmp_path)
    broken, good = annotated / "annotations/people.xml", annotated / "annotations/empty.xml"
    good.write_text(broken.read_text().replace("<xmax>236", "<xmax>100").replace("<ymax>262", "<ymax>80"))
    broken.write_text(broken.read_text().replace(old, new))
    assert evaluate_mask_detector.main(["-d", "photos"]) == 1
    assert f"[WARN] {message}\n" in capsys.readouterr().err


def test_evaluate_warns_of_unknown_names_and_labels(annotated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    annotation = annotated / "annotations/people.xml"
    annotation.write_text(annotation.read_text().replace("with_mask", "visor"))
    Path("some.txt").write_text("people\nnobody\n")
    assert evaluate_mask_detector.main(["-d", "photos", "--only", "some.txt"]) == 0
    error = capsys.readouterr().err
    assert "[WARN] --only lists 2 photos, 1 of them are in photos\n" in error
    assert (
        f"[WARN] {evaluate_mask_detector.options.DEFAULT_MODEL} does not know the labels visor: such faces count as wrong labels; "
        "--rename renames them\n" in error
    )
    assert json.loads(Path("evaluation/report.json").read_text())["sets"]["photos"]["labels_on_true_boxes"]["right"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-d", "none"], "error: none: no such folder; give one of photos", id="no folder"),
        pytest.param(["-d", "photos", "--only", "none.txt"], "error: none.txt: cannot be read", id="no list"),
        pytest.param(["-d", "photos", "--only", "strangers.txt"], "error: photos: has none of the 1 photos listed; list names without suffix, one per line", id="none of the list"),
        pytest.param(["-d", "photos", "-o", "taken"], "error: taken/report.md: is a folder; give a file name", id="output name is a folder"),
        pytest.param(["-d", "photos", "-m", "none.keras"], "error: none.keras: no such file; give -m the model that train_mask_detector.py wrote", id="no model"),
        pytest.param(["-d", "photos", "-o", "photos/images/people.png"], "error: photos/images/people.png: cannot make this folder (File exists); choose another place", id="output is a file"),
        pytest.param(["-d", "photos", "--iou", "photo=0.3"], "error: --iou: photo is not a set of -d; give one of photos", id="--iou of no set"),
        pytest.param(["-d", "photos", "strangers"], "error: strangers: no photos found in its subfolders", id="set without photos"),
    ],
)  # fmt: skip
def test_bad_input(annotated, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("strangers").mkdir()
    Path("strangers.txt").write_text("people.png\n")
    Path("taken/report.md").mkdir(parents=True)
    assert evaluate_mask_detector.main(arguments) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(error) == 1 and error[0].startswith(message)


@pytest.fixture
def sets(annotated, tmp_path, monkeypatch):
    """Four sets: annotated photos twice, photos without faces, and one folder per class."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(annotated, "street/photos")
    Path("nofaces/images").mkdir(parents=True)
    shutil.copy(EXAMPLES / "people.jpg", "nofaces/images")  # eight false positives, if it is said to show no face
    cv2.imwrite("nofaces/images/empty.png", np.full((90, 120, 3), 200, np.uint8))
    for label, name in (("with_mask", "obama_mask"), ("without_mask", "astronaut"), ("without_mask", "obama")):
        Path("faces", label).mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLES / f"{name}.jpg", Path("faces", label))
    return ["photos", "street/photos", "nofaces", "faces"]


def test_evaluate_several_sets(sets, capsys):
    assert evaluate_mask_detector.main(["-d", *sets, "--iou", "street/photos=0.95", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(Path("evaluation/report.json").read_text())
    photos, street, nofaces, faces = report["sets"].values()
    assert list(report["sets"]) == ["photos", "street/photos", "nofaces", "faces"]
    assert [one["kind"] for one in (photos, street, nofaces, faces)] == ["annotated", "annotated", "no faces", "class folders"]
    assert (photos["face_recall"], photos["iou_threshold"]) == (1, 0.5)
    assert (street["face_recall"], street["iou_threshold"]) == (0, 0.95)
    assert (nofaces["photos"], nofaces["false_positives"], nofaces["false_positives_per_100_photos"]) == (2, 8, 400)
    assert faces["labels_of_largest_face"] == {
        "with_mask": {"photos": 1, "shares": {"with_mask": 1.0}},
        "without_mask": {"photos": 2, "shares": {"without_mask": 1.0}},
    }
    folders = sorted(path.name for path in Path("evaluation").iterdir())
    assert folders == ["photos", "report.json", "report.md", "street_photos"]
    assert len(list(Path("evaluation/street_photos").glob("*.png"))) == 3


def test_evaluate_renames_labels(annotated, tmp_path, capsys):
    annotation = annotated / "annotations/people.xml"
    annotation.write_text(annotation.read_text().replace("with_mask", "covered"))
    arguments = ["-d", str(annotated), "-o", str(tmp_path / "out"), "--json", "--rename", "covered=with_mask"]
    assert evaluate_mask_detector.main(arguments) == 0
    out, error = capsys.readouterr()
    assert "does not know" not in error
    assert json.loads(out)["sets"]["photos"]["confusion"]["classes"] == [
        "mask_weared_incorrect", "with_mask", "without_mask",
    ]  # fmt: skip


def test_read_set_counts_background_boxes_as_no_face(annotated):
    annotation = annotated / "annotations/people.xml"
    annotation.write_text(annotation.read_text().replace("</annotation>", "") + OBJECT.format("background") + "</annotation>")
    one = read_set(annotated, ["people"], {}, 0.5, "x")
    assert one.kind is Kind.ANNOTATED
    assert [(photo.labels, photo.boxes.tolist(), len(photo.ignored)) for photo in one.photos] == [
        (("with_mask",), [[65, 55, 236, 262]], 0)
    ]


def test_set_names_are_paths_where_names_are_not_unique():
    assert set_names([Path("a/photos"), Path("b/photos/"), Path("c")]) == ["a/photos", "b/photos", "c"]
