"""What the video script hands to the tracker: the minimum confidence and the frame rate."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import detect_mask_video
from facemask.models.center_face import CenterFaceDetector
from tests.helpers import EXAMPLES, ROOT, uncertain_face

FLOAT32 = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME  # the same results on every processor


def tracks(folder: Path, image: np.ndarray, *options: str) -> list[list[int | None]]:
    """Return the track of each face in each of three frames that show `image`."""
    for number in range(3):
        assert cv2.imwrite(str(folder / f"{number}.png"), image)
    records = folder / "out.jsonl"
    assert detect_mask_video.main(["-i", str(folder), "-f", str(FLOAT32), "--jsonl", str(records), *options]) == 0
    return [[face["track"] for face in json.loads(line)["faces"]] for line in records.read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param((), [[], [], []], id="default"),
        pytest.param(("-c", "0.14"), [[None], [1], [1]], id="lower"),
    ],
)
def test_a_face_begins_a_track_from_the_minimum_confidence_on(tmp_path, options, expected):
    """A face of confidence 0.15 to 0.22."""
    assert tracks(tmp_path, uncertain_face()[0], *options) == expected


@pytest.mark.parametrize("rate", ["0.5", "25"])
def test_a_track_goes_on_at_any_frame_rate(tmp_path, rate):
    """Also where frames are further apart than the 1.5 s that a track otherwise outlives its last face."""
    assert tracks(tmp_path, cv2.imread(str(EXAMPLES / "obama.jpg")), "--rate", rate) == [[None], [1], [1]]
