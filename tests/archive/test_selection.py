"""`python -m facemask select`: the most uncertain images of an archive, near-duplicates once, ready for review."""

import io
import tarfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [archive]: pip install -r requirements-archive.txt")

import cv2
import pyarrow as pa
from pyarrow import parquet as pq

from facemask.__main__ import main
from facemask.archive import job, selection
from facemask.archive.sources import find_names
from facemask.archive.tables import FACES, Row
from facemask.io.collect import Collector
from facemask.io.images import encode_image
from tests.archive.runs import make_output

pytestmark = pytest.mark.archive


def view(number: int) -> np.ndarray:
    """Return an image of 100 x 80 pixels, unlike those of other numbers."""
    coarse = np.random.default_rng(number).integers(0, 255, (8, 10, 3), np.uint8)
    return coarse.repeat(10, axis=0).repeat(10, axis=1)


def row(name: object, probability: float, confidence: float = 1.0) -> Row:
    labels = {"with_mask": probability, "without_mask": 1 - probability}
    face = {"box": [10, 20, 50, 70], "confidence": confidence, "label": "with_mask", "probability": probability}
    sure = face | {"probability": 0.99, "unsure": False, "probabilities": {"with_mask": 0.99, "without_mask": 0.01}}
    faces = [sure, face | {"unsure": probability < 0.7, "probabilities": labels}]
    return Row({"image": str(name), "width": 100, "height": 80, "faces": faces})


@pytest.fixture
def in_this_process(monkeypatch):
    """Run units here, and return the list of those that ran."""

    @contextmanager
    def cluster(address, actors):
        yield 1

    def run_units(units, actor, settings, actors):
        for unit in units:
            ran.append(unit)
            yield actor(settings).process(unit)

    ran: list = []
    monkeypatch.setattr(job, "cluster", cluster)
    monkeypatch.setattr(job, "run_units", run_units)
    return ran


@pytest.fixture
def results(tmp_path, in_this_process) -> Path:
    """Results of images in files, a tar shard and Parquet, some near-duplicates, and one that is gone."""
    images = tmp_path / "in"
    images.mkdir()
    jpeg = partial(encode_image, suffix=".jpg")
    for number in range(4):
        (images / f"{number}.jpg").write_bytes(jpeg(view(number)))
    (images / "again.jpg").write_bytes(jpeg(cv2.add(view(0), 2)))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(10, 13):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(jpeg(view(number)))
            tar.addfile(member, io.BytesIO(jpeg(view(number))))
    pq.write_table(pa.table({"image": [jpeg(view(20)), jpeg(view(21))]}), tmp_path / "b.parquet", row_group_size=1)
    output = make_output(tmp_path, "results")
    rows = [
        row(images / "0.jpg", 0.9),
        row(images / "again.jpg", 0.50),
        row(images / "1.jpg", 0.51),
        row(images / "2.jpg", 0.95, confidence=0.55),
        row(images / "3.jpg", 0.94),
        row(images / "gone.jpg", 0.5),
        row(tmp_path / "a.tar/11.jpg", 0.53),
        row(f"{tmp_path}/b.parquet#1", 0.54),
        Row({"image": str(images / "empty.jpg"), "width": 100, "height": 80, "faces": []}),
        Row({"image": str(images / "bad.jpg"), "error": "bad.jpg: bad"}),
    ]
    output.write_part(FACES, "0" * 32, 0, False, rows)
    output.write_json("run.json", {"run": "a", "options": {"format": "parquet"}})
    return tmp_path / "results"


def selected(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "images").iterdir())


def test_most_uncertain_images_are_selected_and_near_duplicates_once(results, tmp_path, capsys):
    folder = tmp_path / "to_review"
    assert main(["select", str(results), "-n", "5", "-o", str(folder)]) == 0
    assert selected(folder) == ["1.jpg", "11.jpg", "2.jpg", "again.jpg", "b.parquet_1.jpg"]
    assert "1 images could not be read, as" in capsys.readouterr().err
    assert np.abs(cv2.imread(str(folder / "images" / "b.parquet_1.jpg")).astype(int) - view(21)).mean() < 12
    yolo = (folder / "labels" / "11.txt").read_text()
    assert yolo == "0 0.300000 0.562500 0.400000 0.625000\n" * 2
    # a further selection adds others only
    assert main(["select", str(results), "-n", "3", "-o", str(folder)]) == 0
    assert selected(folder) == ["1.jpg", "11.jpg", "2.jpg", "3.jpg", "again.jpg", "b.parquet_1.jpg"]
    assert "only 1 of the 8 most uncertain images" in capsys.readouterr().err


def test_selection_can_be_reviewed(results, tmp_path):
    pytest.importorskip("defusedxml")
    from facemask.training.review import Review

    folder = tmp_path / "to_review"
    main(["select", str(results), "-n", "2", "-o", str(folder)])
    review = Review(folder)
    assert [(face.photo, face.label) for face in review.faces] == [("1", "with_mask")] * 2 + [("again", "with_mask")] * 2
    assert review.classes == ["with_mask", "without_mask"]


def test_no_more_images_are_read_than_needed(results, tmp_path, in_this_process):
    main(["select", str(results), "-n", "1", "-o", str(tmp_path / "to_review")])
    assert sum(unit.count for unit in in_this_process) == 2  # ROUND
    assert selected(tmp_path / "to_review") == ["again.jpg"]


def test_chosen_images_that_turn_out_alike_are_reported(results, tmp_path, caplog):
    names = [str(tmp_path / "in" / name) for name in ("0.jpg", "again.jpg")]
    chosen = [selection.Candidate(name, []) for name in names]
    collector = Collector(tmp_path / "to_review", ["with_mask"], None)
    selection.collect(chosen, find_names, collector, 10**8)
    assert selected(tmp_path / "to_review") == ["0.jpg"]
    assert "1 images not copied: whole, they are like others in the folder" in caplog.text


@pytest.mark.parametrize("lack", ["results", "faces"])
def test_results_that_cannot_be_selected_from(results, tmp_path, capsys, lack):
    output = make_output(tmp_path, "other")
    if lack == "faces":
        output.write_json("run.json", {"run": "a", "options": {"format": "parquet"}})
        output.write_part(FACES, "0" * 32, 0, False, [Row({"image": "a.jpg", "error": "a.jpg: bad"})])
    assert main(["select", output.uri, "-o", str(tmp_path / "to_review")]) == 1
    messages = {
        "results": "holds no results of images; give the -o of detect_mask_archive.py",
        "faces": "no face was detected in these images; nothing to label",
    }
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {output.uri}: {messages[lack]}"
