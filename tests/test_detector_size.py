"""The size at which the face detector works, and its tiles: what the options say, and their defaults."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import detect_mask_image
import detect_mask_video
from facemask.models.center_face import CenterFaceDetector
from tests.helpers import EXAMPLES, ROOT

FLOAT32 = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME  # the same results on every processor
IMAGE, VIDEO = detect_mask_image.main, detect_mask_video.main


def count_faces(script: Callable[[list[str]], int], folder: Path, people_height: int, *options: str) -> int:
    """Return how many faces a script finds in an image of 512 x 256 px, in which the eight people are `people_height` px high."""
    image = np.full((256, 512, 3), 128, np.uint8)
    people = cv2.resize(
        cv2.imread(str(EXAMPLES / "people.jpg")), (2 * people_height, people_height), interpolation=cv2.INTER_AREA
    )
    image[60 : 60 + people.shape[0], 100 : 100 + people.shape[1]] = people
    path, records = folder / "people.png", folder / "out.jsonl"
    assert cv2.imwrite(str(path), image)
    assert script(["-i", str(path), "-f", str(FLOAT32), "--jsonl", str(records), *options]) == 0
    return len(json.loads(records.read_text())["faces"])


@pytest.mark.parametrize(
    ("script", "options"),
    [
        pytest.param(IMAGE, ("--tiles", "off"), id="image"),
        pytest.param(VIDEO, (), id="video"),
        pytest.param(VIDEO, ("--blur",), id="video, faces hidden"),
    ],
)
def test_detector_size_is_used(tmp_path, script, options):
    """Faces of 11 px: most are missed by default, and found in an image enlarged twice."""
    assert count_faces(script, tmp_path, 36, *options) < 5
    assert count_faces(script, tmp_path, 36, *options, "--detector-size", "1024") > 6


@pytest.mark.parametrize(
    ("script", "options", "in_tiles"),
    [
        pytest.param(IMAGE, (), True, id="image"),
        pytest.param(IMAGE, ("--tiles", "off"), False, id="image, off"),
        pytest.param(VIDEO, (), False, id="video"),
        pytest.param(VIDEO, ("--tiles", "auto"), True, id="video, auto"),
    ],
)
def test_images_are_detected_in_tiles_and_videos_are_not_by_default(tmp_path, script, options, in_tiles):
    """Faces of 14 px: most are missed without tiles."""
    assert (count_faces(script, tmp_path, 44, *options) > 6) is in_tiles
