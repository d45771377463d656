"""The front door: `import facemask` is cheap, its names are all there, and the programs of docs/api.md run as they stand."""

import os
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

import facemask
from tests.helpers import EXAMPLES, PEOPLE, ROOT, read_csv

PROGRAMS = dict(re.findall(r"^## ([^\n]+)\n.*?^```python\n(.*?)^```", (ROOT / "docs/api.md").read_text("utf-8"), re.M | re.S))
LABELS = {"with_mask", "without_mask", "mask_weared_incorrect"}


def run_program(program: str, folder) -> list[str]:
    """Run a program in a folder outside the checkout; returns the lines that it prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_importing_loads_no_library_and_names_are_listed():
    code = (
        "import sys, facemask\n"
        "print(sorted({'numpy', 'cv2', 'PIL', 'onnxruntime', 'supervision'} & sys.modules.keys()), facemask.__all__ == dir_)"
    ).replace("dir_", "[name for name in dir(facemask) if name in facemask.__all__]")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[] True\n", "")


@pytest.mark.parametrize("name", facemask.__all__)
def test_each_name_is_there(name):
    assert getattr(facemask, name) is not None


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'facemask' has no attribute 'detect'"):
        facemask.detect  # noqa: B018


def test_docs_have_the_three_programs():
    assert list(PROGRAMS) == ["One image", "A folder of images to a CSV file", "A video, with tracks"]


def test_program_one_image(tmp_path):
    shutil.copy(EXAMPLES / "people.jpg", tmp_path)
    lines = run_program(PROGRAMS["One image"], tmp_path)
    assert len(lines) == len(PEOPLE) and {line.split()[0] for line in lines} == LABELS
    original, annotated = (cv2.imread(str(path)) for path in (EXAMPLES / "people.jpg", tmp_path / "annotated.jpg"))
    assert annotated.shape == original.shape and np.abs(annotated.astype(int) - original).max() > 100


def test_program_folder_to_csv(tmp_path):
    (tmp_path / "photos").mkdir()
    shutil.copy(EXAMPLES / "people.jpg", tmp_path / "photos")
    shutil.copy(EXAMPLES / "astronaut.jpg", tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (line,) = run_program(PROGRAMS["A folder of images to a CSV file"], tmp_path)
    assert line.startswith("skipped: photos/broken.jpg: ")
    rows = read_csv(tmp_path / "faces.csv")
    assert [row["image"] for row in rows] == ["astronaut.jpg"] + ["people.jpg"] * len(PEOPLE)
    assert rows[0]["label"] == "without_mask" and abs(int(rows[0]["x1"]) - 142) < 10


def test_program_video_with_tracks(tmp_path, astronaut):
    writer = cv2.VideoWriter(str(tmp_path / "street.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, astronaut.shape[1::-1])
    for _ in range(5):
        writer.write(astronaut)
    writer.release()
    lines = run_program(PROGRAMS["A video, with tracks"], tmp_path)
    assert [line.split(": ")[0] for line in lines] == [f"{number / 10:.2f} s" for number in range(5)]
    assert lines[-1].startswith("0.40 s: person 1: without_mask")


def test_annotate_has_track_ids(astronaut):
    face = facemask.Detection((142, 60, 237, 178), 1.0, "with_mask", 1.0, {"with_mask": 1.0})
    tracked = facemask.Detection(face.box, 1.0, "with_mask", 1.0, face.probabilities, 7)
    plain, numbered = facemask.annotate(astronaut, [face]), facemask.annotate(astronaut, [tracked])
    assert (plain != astronaut).any() and (plain != numbered).any()


def test_to_supervision():
    pytest.importorskip("supervision")
    probabilities = {"with_mask": 0.2, "without_mask": 0.8}
    faces = [
        facemask.Detection((1, 2, 30, 40), 0.9, "without_mask", 0.8, probabilities),
        facemask.Detection((5, 6, 70, 80), 0.5, "without_mask", 0.8, probabilities, 3),
    ]
    detections = facemask.to_supervision(faces)
    assert detections.xyxy.tolist() == [[1, 2, 30, 40], [5, 6, 70, 80]]
    assert detections.confidence.tolist() == pytest.approx([0.9, 0.5])
    assert detections.class_id.tolist() == [1, 1] and detections.tracker_id.tolist() == [-1, 3]
    assert detections.data["class_name"].tolist() == ["without_mask"] * 2
    assert detections.data["probability"].tolist() == pytest.approx([0.8, 0.8])
    assert facemask.to_supervision(faces[:1]).tracker_id is None
    assert len(facemask.to_supervision([])) == 0
