"""python -m facemask convert, and the program for plain Keras in docs/training.md."""

import re
import shutil
from contextlib import chdir

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

import facemask.__main__ as command  # noqa: E402
from facemask.training.dataset import ClassPhoto  # noqa: E402
from facemask.training.formats import find_format, read_dataset  # noqa: E402
from tests.helpers import EXAMPLES, ROOT  # noqa: E402


@pytest.fixture
def folders(tmp_path):
    """Two photos of one face each, and one of eight, as a data set with splits."""
    for split, label, name in (("train", "bare", "astronaut"), ("test", "mask", "obama_mask"), ("test", "bare", "people")):
        (tmp_path / "in" / split / label).mkdir(parents=True)
        shutil.copy(EXAMPLES / f"{name}.jpg", tmp_path / "in" / split / label)
    return tmp_path / "in"


@pytest.mark.parametrize("kind", ["yolo", "coco", "voc", "csv", "folders"])
def test_convert_from_class_folders_and_on_to_each_format(folders, tmp_path, capsys, kind):
    assert command.main(["convert", str(folders), str(tmp_path / "boxes"), "--format", "voc"]) == 0
    assert "[WARN] 1 photos by class do not show exactly one face: left out" in capsys.readouterr().err.splitlines()
    assert command.main(["convert", str(tmp_path / "boxes"), str(tmp_path / "out"), "--format", kind]) == 0
    assert find_format(tmp_path / "out").name == kind
    photos = {photo.labels[0]: photo for photo in read_dataset(tmp_path / "out")}
    assert {label: photo.split for label, photo in photos.items()} == {"bare": "train", "mask": "test"}
    if kind == "folders":
        assert [max(cv2.imread(str(photos[label].path)).shape) in range(*sides) for label, sides in
                (("bare", (150, 260)), ("mask", (380, 480)))] == [True, True]  # fmt: skip
    else:
        np.testing.assert_allclose(photos["bare"].boxes, [[142, 60, 237, 178]], atol=12)  # by hand, as in the helpers
    assert not list(tmp_path.glob("*.partial"))


def test_photos_by_class_stay_as_they_are_in_csv(folders, tmp_path):
    assert command.main(["convert", str(folders), str(tmp_path / "out"), "--format", "csv"]) == 0
    photos = read_dataset(tmp_path / "out")
    assert sorted((photo.path.name, photo.label, photo.split) for photo in photos if isinstance(photo, ClassPhoto)) == [
        ("astronaut.jpg", "bare", "train"), ("obama_mask.jpg", "mask", "test"), ("people.jpg", "bare", "test"),
    ]  # fmt: skip


def test_convert_never_writes_into_a_folder_that_exists(folders, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert command.main(["convert", str(folders), str(tmp_path / "out"), "--format", "csv"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {tmp_path}/out: exists already; remove it, or name another folder"
    assert command.main(["convert", str(tmp_path / "none"), str(tmp_path / "new"), "--format", "csv"]) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_program_for_plain_keras(capsys):
    pytest.importorskip("keras")
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    with chdir(ROOT):
        exec(program, {})
    probabilities = eval(capsys.readouterr().out.splitlines()[-1])
    assert list(probabilities) == ["background", "mask_weared_incorrect", "with_mask", "without_mask"]
    assert probabilities["with_mask"] > 0.9
