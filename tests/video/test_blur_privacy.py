"""What --blur promises: uncertain faces are hidden too, and the place of a face that was there just before."""

import json
from pathlib import Path

import cv2
import numpy as np

import detect_mask_video
from facemask.drawing import pixelate_faces
from facemask.models.center_face import CenterFaceDetector
from facemask.video import display
from facemask.video.sources import open_source
from tests.helpers import ROOT, uncertain_face

FLOAT32 = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME  # the same results on every processor
FACE = (142, 60, 237, 178)  # of examples/astronaut.jpg, x1, y1, x2, y2 px


def run(tmp_path: Path, images: list[np.ndarray], *options: str) -> tuple[list[np.ndarray], list[int]]:
    """Run the script on `images` as frames, four per second; return the frames written and their counts of faces."""
    folder, video, records = tmp_path / "frames", tmp_path / "out.mkv", tmp_path / "out.jsonl"
    folder.mkdir()
    for number, image in enumerate(images):
        assert cv2.imwrite(str(folder / f"{number}.png"), image)
    arguments = ["-i", str(folder), "--rate", "4", "-f", str(FLOAT32), "-o", str(video), "--jsonl", str(records)]
    assert detect_mask_video.main([*arguments, *options]) == 0
    with open_source(str(video)) as source:
        frames = [frame.image for frame in source.frames()]
    assert len(frames) == len(images)
    return frames, [len(json.loads(line)["faces"]) for line in records.read_text().splitlines()]


def distance(image: np.ndarray, other: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """Return the mean absolute difference of two images, 0..255, inside a box."""
    x1, y1, x2, y2 = box
    return float(np.abs(image[y1:y2, x1:x2].astype(int) - other[y1:y2, x1:x2]).mean())


def test_an_uncertain_face_is_hidden_but_not_reported(tmp_path):
    """Its confidence is too low to begin a track (0.5) or to continue one (0.25)."""
    image, face = uncertain_face()
    (frame,), counts = run(tmp_path, [image], "--blur")
    assert counts == [0]
    hidden = pixelate_faces(image, [face.box])
    assert distance(frame, hidden, face.box) < 6 < 15 < distance(frame, image, face.box)


def test_the_window_shows_hidden_faces_too(tmp_path, monkeypatch, astronaut):
    shown = []
    monkeypatch.setattr(display, "has_display", lambda: True)
    monkeypatch.setattr(cv2, "namedWindow", lambda name, flags: None)
    monkeypatch.setattr(cv2, "resizeWindow", lambda name, width, height: None)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, which: 1.0)
    run(tmp_path, [astronaut], "--blur")
    (image,) = shown
    eyes = (155, 90, 225, 130)  # away from the box and the label
    assert distance(image, pixelate_faces(astronaut, [FACE]), eyes) < 25 < distance(image, astronaut, eyes)


def test_without_blur_an_uncertain_face_is_shown(tmp_path):
    image, face = uncertain_face()
    (frame,), counts = run(tmp_path, [image])
    assert counts == [0]
    assert distance(frame, image, face.box) < 6


def test_the_place_of_a_lost_face_is_hidden_until_its_track_ends(tmp_path, astronaut):
    """The detector misses the face in some frames: its place stays hidden while the track lives, 1.5 s, and no longer."""
    x1, y1, x2, y2 = FACE
    missed = np.broadcast_to(90 + 80 * (np.arange(400) // 4 % 2)[:, None, None], astronaut.shape).astype(np.uint8)
    assert CenterFaceDetector.load(FLOAT32).detect(missed, 0.1) == []
    frames, counts = run(tmp_path, [astronaut] * 4 + [missed] * 9, "--blur")
    assert counts == [1] * 4 + [0] * 9
    contrast = [frame[y1:y2, x1:x2].std() for frame in frames[4:]]  # of the stripes 40, of their mosaic about 0
    assert max(contrast[:5]) < 15 and min(contrast[7:]) > 30  # to 1.25 s, and from 2 s on
