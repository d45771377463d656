"""What tests share: the repository's own pictures and networks, and ../shared where it is present."""

import os
from pathlib import Path

from facemask.cli import run as cli

cli.quiet_libraries()  # as a script does, before OpenCV is imported

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

if os.environ.get("FUZZ"):
    settings.register_profile("fuzz", max_examples=2000, deadline=None)
    settings.load_profile("fuzz")
elif not os.environ.get("CI"):  # there Hypothesis repeats its examples, without deadlines, by itself
    settings.register_profile("calm", deadline=None)  # a busy machine is no error
    settings.load_profile("calm")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
EXAMPLES = ROOT / "examples"
DAMAGED = "damaged, or no model of this version (its checksum is wrong or missing); copy it again, or train it anew"


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever machine the tests run on, no window opens."""
    monkeypatch.setattr("facemask.io.images.has_display", lambda: False)


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("../shared is absent: its photos are not part of the repository")
    return SHARED


@pytest.fixture
def astronaut() -> np.ndarray:
    return cv2.imread(str(EXAMPLES / "astronaut.jpg"))


def write_class_folders(folder: Path) -> None:
    """Write forty views of the example faces, bare and masked, as photos in class folders."""
    from facemask.training.augment import augment
    from facemask.training.dataset import FacePatch

    faces = {"astronaut": (142, 60, 237, 178), "obama": (238, 79, 474, 379), "biden": (300, 120, 560, 480)}
    rng = np.random.default_rng(0)
    for label, suffix in (("with_mask", "_mask"), ("without_mask", "")):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            name = list(faces)[number % 3]
            image = cv2.imread(str(EXAMPLES / f"{name}{suffix}.jpg"))
            cv2.imwrite(str(folder / label / f"{number}.png"), augment(FacePatch(image, faces[name]), 96, 0.2, rng))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Twelve frames of 160x120 at 29.97 frames per second; the grey level of frame n is 20 n."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30000 / 1001, (160, 120))
    for number in range(12):
        writer.write(np.full((120, 160, 3), 20 * number, np.uint8))
    writer.release()
    return path
