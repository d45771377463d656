import csv
import json
from pathlib import Path

import pytest

from facemask.errors import InputError
from facemask.io.outputs import Place
from facemask.io.records import CSV_COLUMNS, face_record, run_records, skip_results, tracked_face_record
from facemask.labels import UNSURE
from facemask.types import Detection, FileResult
from tests.helpers import read_csv

SURE = Detection((1, 2, 30, 40), 0.98765432, "with_mask", 0.87654321, {"with_mask": 0.87654321, "without_mask": 0.12345679})
LOW = Detection((5, 6, 7, 8), 0.5, "without_mask", 0.51, {"with_mask": 0.49, "without_mask": 0.51}, track=3)
RECORD = {
    "box": (1, 2, 30, 40), "confidence": 0.9877, "label": "with_mask", "probability": 0.8765, "unsure": False,
    "probabilities": {"with_mask": 0.8765, "without_mask": 0.1235},
}  # fmt: skip


def result_of(*faces: Detection) -> FileResult:
    return FileResult(640, 480, list(faces), False, None, [])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_face_record_rounds_to_four_digits():
    assert face_record(SURE) == RECORD
    assert tracked_face_record(LOW) == {
        "track": 3, "box": (5, 6, 7, 8), "confidence": 0.5, "label": "without_mask", "probability": 0.51, "unsure": True,
        "probabilities": {"with_mask": 0.49, "without_mask": 0.51},
    }  # fmt: skip


@pytest.mark.parametrize(("probability", "unsure"), [(UNSURE - 0.01, True), (UNSURE, False), (0.99, False)])
def test_is_unsure(probability, unsure):
    assert Detection((0, 0, 1, 1), 1.0, "a", probability, {"a": probability, "b": 1 - probability}).is_unsure is unsure


def test_csv_is_made_of_the_json_lines(tmp_path):
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    with run_records(paths, tmp_path / "o.jsonl", tmp_path / "o.csv", None) as records:
        assert records.remaining == paths and records.outputs == {} and records.done_before == 0
        records.write(paths[0], result_of(SURE, LOW), None)
        records.write(paths[1], result_of(), tmp_path / "out.jpg")
        assert names(tmp_path) == ["o.partial.jsonl", "o.partial.jsonl.lock"]
    assert names(tmp_path) == ["o.csv", "o.jsonl"]
    first, second = (json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines())
    assert first == {
        "image": str(paths[0]), "width": 640, "height": 480,
        "faces": json.loads(json.dumps([face_record(SURE), face_record(LOW)])),
    }  # fmt: skip
    assert second == {
        "image": str(paths[1]), "width": 640, "height": 480, "faces": [], "annotated": str(tmp_path / "out.jpg")
    }  # fmt: skip
    rows = list(csv.reader((tmp_path / "o.csv").read_text().splitlines()))
    assert rows == [
        list(CSV_COLUMNS),
        [str(paths[0]), "1", "2", "30", "40", "0.9877", "with_mask", "0.8765", "false"],
        [str(paths[0]), "5", "6", "7", "8", "0.5", "without_mask", "0.51", "true"],
    ]


def test_csv_alone_leaves_no_json_lines(tmp_path):
    with run_records([Path("a.jpg")], None, tmp_path / "o.csv", None) as records:
        records.write(Path("a.jpg"), result_of(SURE), None)
    assert names(tmp_path) == ["o.csv"]
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("count", [0, 1])
def test_csv_alone_interrupted(tmp_path, caplog, count):
    """The results so far are kept as JSON lines, and a second run keeps them too; the old CSV file stays."""
    (tmp_path / "o.csv").write_text("old")
    with pytest.raises(KeyboardInterrupt), run_records([Path("a.jpg")], None, tmp_path / "o.csv", None) as records:
        for _ in range(count):
            records.write(Path("a.jpg"), result_of(SURE), None)
        raise KeyboardInterrupt
    lines = tmp_path / "o.csv.partial.jsonl"
    assert names(tmp_path) == ["o.csv", *[lines.name] * count]
    assert (tmp_path / "o.csv").read_text() == "old"
    assert caplog.messages == [f"not finished: the results so far are in {lines}, as JSON lines"] * count
    with run_records([Path("a.jpg")], None, tmp_path / "o.csv", None) as records:
        records.write(Path("a.jpg"), result_of(), None)
    assert names(tmp_path) == ["o.csv", *["o.csv.partial-1.jsonl"] * count]


def test_run_without_records(tmp_path):
    with run_records([Path("a.jpg")], None, None, Place(tmp_path / "out", is_folder=True)) as records:
        assert records.outputs == {Path("a.jpg"): tmp_path / "out" / "a.jpg"} and records.lines is None
        records.write(Path("a.jpg"), result_of(SURE), None)
    assert names(tmp_path) == ["out"]


def test_resume_makes_the_csv_of_all_lines(tmp_path):
    """Also of lines that version 1 wrote, which had no "unsure"."""
    old = {"image": "a.jpg", "faces": [{"box": [1, 2, 3, 4], "confidence": 0.9, "label": "a", "probability": 0.55}]}
    (tmp_path / "o.partial.jsonl").write_text(json.dumps(old) + "\n")
    paths = [Path("a.jpg"), Path("b.jpg")]
    with run_records(paths, tmp_path / "o.jsonl", tmp_path / "o.csv", None, resume=True) as records:
        assert records.remaining == paths[1:] and records.done_before == 1
        records.write(paths[1], result_of(SURE), None)
    rows = read_csv(tmp_path / "o.csv")
    assert [(row["image"], row["unsure"]) for row in rows] == [("a.jpg", "true"), ("b.jpg", "false")]


def test_csv_that_another_run_is_writing(tmp_path):
    with run_records([Path("a.jpg")], None, tmp_path / "o.csv", None):
        busy = pytest.raises(InputError, match=r"o\.csv: another run is writing it; wait for its end, or name another file")
        with busy, run_records([Path("a.jpg")], None, tmp_path / "o.csv", None):
            pass


def test_skip_results(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    paths = [tmp_path / "a.jpg", output / "a.jpg"]
    assert skip_results(paths, output) == paths[:1]
    assert skip_results(paths, None) == paths and skip_results(paths, tmp_path / "none") == paths
    assert skip_results(paths[1:], output) == paths[1:]
