"""What outputs show of a frame: drawn when asked for, once, on images in which faces are hidden if they are to be."""

import numpy as np
import pytest

from facemask.types import Detection, FrameResult
from facemask.video import frame_images as frame_images_module
from facemask.video.frame_images import FrameImages

NO_MASK = (0, 94, 213)  # BGR
FACES = [
    Detection((40, 60, 80, 110), 0.9, "without_mask", 0.9, {}, 1),
    Detection((140, 60, 180, 110), 0.9, "without_mask", 0.9, {}, 2),
]
IMAGE = np.random.default_rng(0).integers(0, 40, (200, 240, 3), np.uint8)


def frame_images(hidden=()) -> FrameImages:
    return FrameImages(IMAGE, FrameResult(0, 0.0, FACES, [], [], []), hidden)


def test_nothing_is_drawn_until_an_output_asks_and_then_once(monkeypatch):
    drawn = []

    def draw(*arguments):
        drawn.append(arguments)
        return IMAGE.copy()

    monkeypatch.setattr(frame_images_module, "draw_tracked", draw)
    shown = frame_images()
    assert shown.plain is IMAGE and drawn == []
    assert shown.annotated is shown.annotated and len(drawn) == 1


def box_pixels(image: np.ndarray, face: Detection) -> int:
    """Return how many pixels have the colour of the label, in the rows between the box's corners."""
    x1, y1, x2, y2 = face.box
    return int((image[y1 + 10 : y2 - 10, x1 - 12 : x2 + 12] == NO_MASK).all(axis=2).sum())


def test_marked_person_has_a_strong_box_and_others_thin_ones():
    annotated, marked = frame_images().annotated, frame_images().marked(2)
    other, meant = FACES
    rows = 110 - 60 - 20
    assert [box_pixels(annotated, face) for face in FACES] == [6 * rows, 6 * rows]  # both sides, 3 px wide
    assert [box_pixels(marked, other), box_pixels(marked, meant)] == [2 * rows, 10 * rows]
    strip = marked[60 - 30 : 60 - 4]
    assert not (strip[:, 30:90] == NO_MASK).all(axis=2).any() and (strip[:, 130:190] == NO_MASK).all(axis=2).any()  # one label


@pytest.mark.parametrize("track", [1, 2, 9])
def test_hidden_faces_are_hidden_in_every_image(track):
    shown = frame_images([face.box for face in FACES])
    for image in (shown.plain, shown.annotated, shown.marked(track)):
        for face in FACES:
            x1, y1, x2, y2 = face.box
            inside = image[y1 + 5 : y2 - 5, x1 + 5 : x2 - 5]
            assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= 25
    assert (shown.plain != IMAGE).any()
