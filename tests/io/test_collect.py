"""Images worth labelling: which are collected, how they are written, and that the data set is read again."""

import json

import cv2
import numpy as np
import pytest

import detect_mask_image
import detect_mask_video
from facemask.io.collect import Collector
from facemask.types import Detection, FrameResult, Track
from facemask.video.collecting import CollectingOutput
from facemask.video.frame_images import FrameImages
from tests.helpers import uncertain_face, write_video

CLASSES = ["with_mask", "without_mask"]
BOX = (10, 20, 50, 70)


def face(label: str = "with_mask", probability: float = 0.99, confidence: float = 0.99, track: int | None = None) -> Detection:
    other = CLASSES[1 - CLASSES.index(label)]
    return Detection(BOX, confidence, label, probability, {label: probability, other: 1 - probability}, track)


def view(number: int) -> np.ndarray:
    """Return an image of 100 x 80 pixels, unlike those of other numbers."""
    coarse = np.random.default_rng(number).integers(0, 255, (8, 10, 3), np.uint8)
    return coarse.repeat(10, axis=0).repeat(10, axis=1)


def names(folder, kind: str = "images") -> list[str]:
    return sorted(path.stem for path in (folder / kind).iterdir())


def test_unsure_labels_and_faces_are_collected_with_their_boxes(tmp_path):
    collector = Collector(tmp_path, CLASSES, limit=10)
    assert collector.consider(view(1), [face("without_mask", 0.55), face()], "a")
    assert collector.consider(view(2), [face(confidence=0.6)], "b c/é")
    assert not collector.consider(view(3), [face()], "sure")
    assert (
        collector.summary()
        == f"2 images to label in {tmp_path} (unsure label 1, unsure face 1); correct them: python -m facemask review {tmp_path}"
    )
    assert names(tmp_path) == names(tmp_path, "labels") == names(tmp_path, "annotations") == ["a", "b_c_é"]
    assert (
        tmp_path / "labels/a.txt"
    ).read_text() == "1 0.300000 0.562500 0.400000 0.625000\n0 0.300000 0.562500 0.400000 0.625000\n"
    assert cv2.imread(str(tmp_path / "images/a.jpg")).shape == (80, 100, 3)
    assert json.loads((tmp_path / "data.yaml").read_text())["names"] == CLASSES


def test_what_is_collected_is_a_data_set_in_both_formats(tmp_path):
    pytest.importorskip("defusedxml")
    from facemask.training.voc import PascalVoc
    from facemask.training.yolo import Yolo

    Collector(tmp_path, CLASSES, limit=10).consider(view(1), [face("without_mask", 0.55)], "a")
    for kind in (PascalVoc(), Yolo()):
        assert kind.recognises(tmp_path)
        (photo,) = kind.read(tmp_path)
        assert (photo.labels, photo.split) == (("without_mask",), "")
        np.testing.assert_allclose(photo.boxes, [BOX], atol=0.01)


def test_near_duplicates_are_never_collected_not_of_an_earlier_run_either(tmp_path):
    collector = Collector(tmp_path, CLASSES, limit=10)
    image = view(1)
    assert collector.consider(image, [face(probability=0.55)], "a")
    noisy = np.clip(image.astype(int) + np.random.default_rng(0).integers(-20, 20, image.shape), 0, 255).astype(np.uint8)
    assert not collector.consider(noisy, [face(probability=0.55)], "b", "asked for")
    assert not Collector(tmp_path, CLASSES, limit=10).consider(noisy, [face(probability=0.55)], "c")
    assert collector.consider(view(2), [], "d", "asked for")


def test_the_number_is_bounded_over_all_runs(tmp_path, caplog):
    for start in (0, 10):
        collector = Collector(tmp_path, CLASSES, limit=3)
        for number in range(start, start + 10):
            collector.consider(view(number), [face(probability=0.55)], str(number))
    assert len(names(tmp_path)) == 3
    assert caplog.messages.count(f"{tmp_path}: holds 3 images: no more are collected; --collect-limit raises this") == 1


def test_a_few_images_are_collected_by_chance(tmp_path, monkeypatch):
    monkeypatch.setattr("facemask.io.collect.RANDOM_SHARE", 0.5)
    collector = Collector(tmp_path, CLASSES, limit=100)
    written = sum(collector.consider(view(number), [face()], str(number)) for number in range(40))
    assert 10 < written < 30 and collector.reasons == {"by chance": written}


def test_a_frame_unlike_its_track_is_collected_and_not_the_next(tmp_path):
    collector = Collector(tmp_path, CLASSES, limit=100)
    output = CollectingOutput(collector, "rtsp://camera/street.mp4")
    track = Track(1, 0.0, 1.0, 9, "with_mask", {"with_mask": 0.9, "without_mask": 0.1}, True, "with_mask", BOX, 0.0)
    for number, (time, label) in enumerate(
        [(0.0, "with_mask"), (0.1, "without_mask"), (0.2, "without_mask"), (1.2, "without_mask")]
    ):
        result = FrameResult(number, time, [face(label, track=1)], [track], [], [])
        output.write(result, FrameImages(view(number), result))
    assert names(tmp_path) == ["street_0000001", "street_0000003"]
    assert collector.reasons == {"label unlike its track": 2}


def test_collect_of_images(tmp_path, capsys):
    image, _ = uncertain_face()
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert detect_mask_image.main(["-i", str(tmp_path / "a.png"), "-c", "0.1", "--collect", str(tmp_path / "new/c")]) == 0
    assert names(tmp_path / "new/c") == ["a"]
    assert (
        f"[INFO] 1 images to label in {tmp_path}/new/c (unsure face 1); correct them: python -m facemask review {tmp_path}/new/c"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        detect_mask_image.main(["-i", str(tmp_path / "a.png"), "--blur", "--collect", str(tmp_path / "new/c")])
    assert "--collect cannot be used with --blur" in capsys.readouterr().err


@pytest.mark.slow
def test_collect_of_a_video_and_never_with_blur(tmp_path, capsys):
    image, _ = uncertain_face()
    video = write_video(tmp_path / "v.mp4", [image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]] * 6)
    arguments = ["-i", str(video), "-c", "0.1", "--collect", str(tmp_path / "c"), "--jsonl", str(tmp_path / "o.jsonl")]
    assert detect_mask_video.main(arguments) == 0
    assert len(names(tmp_path / "c")) == 1
    assert "1 images to label" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        detect_mask_video.main([*arguments, "--blur"])
    assert "--collect cannot be used with --blur" in capsys.readouterr().err
