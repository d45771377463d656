"""The mosaics that the face detector learns from, face_detector/mosaics.py."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("keras")

from face_detector import mosaics  # noqa: E402
from face_detector.mosaics import Boxes, MosaicDataset, Photo, Source  # noqa: E402

ASTRONAUT = (142, 60, 237, 178)


def encode(image: np.ndarray, **boxes) -> Photo:
    return Photo(cv2.imencode(".png", image)[1].tobytes(), image.shape[1::-1], **boxes)


@pytest.fixture
def photo(astronaut) -> Photo:
    """The astronaut's photo, black but for a white face."""
    image = np.zeros_like(astronaut)
    x1, y1, x2, y2 = ASTRONAUT
    image[y1:y2, x1:x2] = 255
    return encode(image, boxes=np.array([ASTRONAUT], np.float32))


def dataset(*sources: Source, negatives=(), **settings) -> MosaicDataset:
    return MosaicDataset(sources, negatives, **{"size": 256, "batch_size": 2, "seed": 1, **settings})


def single(photo: Photo, **settings) -> Source:
    return Source([photo], **{"weight": 1.0, "sides": (200, 500), "grids": (1.0,), **settings})


def only_geometry(monkeypatch, **constants) -> None:
    """Switch light and camera off, and set constants of the transformation."""
    monkeypatch.setattr(mosaics, "relight", lambda image, rng: image)
    monkeypatch.setattr(mosaics, "degrade", lambda image, rng: image)
    for name, value in constants.items():
        monkeypatch.setattr(mosaics, name, value)


def test_batches_repeat_by_seed_and_differ_by_number(photo):
    first, again, other = dataset(single(photo)), dataset(single(photo)), dataset(single(photo), seed=2)
    images, targets = first[0]
    assert images.shape == (2, 256, 256, 3) and targets.shape == (2, 64, 64, 7)
    np.testing.assert_array_equal(images, again[0][0])
    assert not np.array_equal(images, other[0][0])
    assert not np.array_equal(images, first[1][0])
    again.first = 1
    np.testing.assert_array_equal(first[1][0], again[0][0])


@pytest.mark.parametrize("turned", [0.0, 1.0], ids=["upright", "turned"])
def test_boxes_follow_the_face(photo, monkeypatch, turned):
    only_geometry(monkeypatch, TURNED=turned, TILTED=0.0)
    rng, seen, wide = np.random.default_rng(0), 0, 0
    for _ in range(40):
        image, faces, ignored = dataset().mosaic(single(photo), rng)
        for x1, y1, x2, y2 in faces.round().astype(int).tolist():
            assert image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean() > 240
            seen += 1
            wide += x1 > 0 and x2 < 256 and y1 > 0 and y2 < 256 and x2 - x1 > y2 - y1
        assert len(faces) + len(ignored) <= 1
    assert seen > 20
    assert (wide > 5) == (turned > 0)


def test_a_tilted_face_stays_in_its_box(photo, monkeypatch):
    image = cv2.imdecode(np.frombuffer(photo.encoded, np.uint8), cv2.IMREAD_COLOR)
    cv2.rectangle(image, ASTRONAUT[:2], ASTRONAUT[2:], (0, 0, 0), cv2.FILLED)
    x1, y1, x2, y2 = ASTRONAUT
    cv2.ellipse(image, (((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1), 0), (255, 255, 255), cv2.FILLED)
    boxes = Boxes(photo.boxes, mosaics.EMPTY, mosaics.EMPTY)
    for degrees in (-45, -20, 30, 45):
        tilted, found = mosaics.tilt(image, boxes, degrees, np.random.default_rng(3))
        rows, columns = np.nonzero((tilted == 255).all(axis=2))
        np.testing.assert_allclose(found.faces[0], (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), atol=2)


def test_mosaics_show_faces_of_one_source(photo):
    _, faces, ignored = dataset().mosaic(single(photo, grids=(0.0, 1.0)), np.random.default_rng(0))
    assert 2 <= len(faces) + len(ignored) <= 4
    without_faces = replace(single(encode(np.full((100, 100, 3), 255, np.uint8))), weight=0.0)
    for number in range(5):
        assert dataset(single(photo, sides=(200, 240)), without_faces)[number][1][..., 0].max(axis=(1, 2)).min() > 0.99


def test_grids_hold_many_small_faces(photo):
    rng, counts, heights = np.random.default_rng(0), [], []
    for _ in range(20):
        image, faces, ignored = dataset().mosaic(Source([photo], 1.0, (290, 665), (0, 0, 0, 1.0)), rng)
        assert image.shape == (256, 256, 3) and (faces >= 0).all() and (faces <= 256).all()
        counts.append(len(faces) + len(ignored))
        heights += (faces[:, 3] - faces[:, 1]).tolist()
    assert 9 < max(counts) <= 16
    assert min(heights) < 25


def test_negatives_share_mosaics_and_teach_no_face(photo, monkeypatch):
    only_geometry(monkeypatch, NEGATIVE_CELL=1.0)
    red = encode(np.full((200, 200, 3), (0, 0, 255), np.uint8))
    image, faces, ignored = dataset(negatives=[red]).mosaic(single(photo, grids=(0.0, 1.0)), np.random.default_rng(0))
    assert len(faces) + len(ignored) <= 1
    assert ((image == (255, 0, 0)).all(axis=2)).mean() > 0.2


def test_photos_with_false_positives_are_drawn_half_of_the_time(photo):
    easy = [encode(np.zeros((50, 50, 3), np.uint8)) for _ in range(9)]
    hard = replace(easy[0], false_positives=np.array([(10, 10, 20, 20)], np.float32))
    source, rng = Source([*easy, hard], 1.0, (200, 500)), np.random.default_rng(0)
    assert 180 < sum(source.draw(rng) is hard for _ in range(400)) < 260
    assert {id(Source(easy, 1.0, (200, 500)).draw(rng)) for _ in range(200)} == set(map(id, easy))


def test_windows_show_false_positives(monkeypatch):
    only_geometry(monkeypatch, TURNED=0.0, TILTED=0.0)
    image = np.zeros((1000, 1000, 3), np.uint8)
    image[900:940, 900:940] = 255
    hard = encode(image, false_positives=np.array([(900, 900, 940, 940)], np.float32))
    source, rng = Source([hard], 1.0, (1000, 1001), (1.0,)), np.random.default_rng(0)
    shown = sum(dataset().mosaic(source, rng)[0].max() > 200 and True for _ in range(30))
    assert shown > 15


def test_small_and_cut_faces_are_ignored(photo, monkeypatch):
    only_geometry(monkeypatch, TURNED=0.0, TILTED=0.0)
    mosaic = np.zeros((64, 64, 3), np.uint8)
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = Boxes(np.array([(10, 10, 30, 30), (55, 5, 95, 45), (40, 40, 44, 44)], np.float32), mosaics.EMPTY, mosaics.EMPTY)
    faces, ignored = mosaics.paste(mosaic, (0, 0, 64, 64), image, (0, 0, 64, 64), boxes)
    np.testing.assert_array_equal(faces, [(10, 10, 30, 30)])
    np.testing.assert_array_equal(ignored, [(55, 5, 64, 45), (40, 40, 44, 44)])
