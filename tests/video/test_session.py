from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from facemask.errors import InputError
from facemask.models.face_detectors import load_face_detector
from facemask.types import Face, Frame, FrameResult
from facemask.video.frame_images import FrameImages
from facemask.video.outputs import FrameOutput
from facemask.video.session import Channel, Session, face_detection
from facemask.video.sources import StoredSource, VideoSource
from facemask.video.tracker import MaskTracker
from facemask.video.zones import ZoneFilter
from tests.helpers import EXAMPLES, ROOT

CLASSES = ("with_mask", "without_mask")
FACE = Face((100, 80, 130, 110), 0.9)


class Source(StoredSource):
    """Gives grey frames, after a stall if asked for."""

    def __init__(self, count: int, is_live: bool = False, stall_before: int | None = None) -> None:
        super().__init__("frames", 25, None, 1)
        self.count, self.is_live, self.stall_before, self.given = count, is_live, stall_before, 0

    def poll(self, on_stall=lambda seconds: None) -> Frame | None:
        if self.given == self.stall_before:
            self.stall_before = on_stall(3.0)
            return None
        return super().poll(on_stall)

    def _read(self) -> Iterator[Frame]:
        for number in range(self.count):
            self.given += 1
            yield Frame(number, number / 25, np.full((200, 300, 3), number, np.uint8))


class Output(FrameOutput):
    """Keeps what it receives; `fail_at` is the number of a frame at which it fails, `stop_at` one at which it stops."""

    def __init__(self, fail_at: int | None = None, stop_at: int | None = None, source=None) -> None:
        self.fail_at, self.stop_at, self.source = fail_at, stop_at, source
        self.results, self.images, self.stalls, self.closed = [], [], [], 0

    def write(self, result: FrameResult, images: FrameImages) -> None:
        if result.number == self.fail_at:
            raise InputError("full")
        if result.number == self.stop_at:
            self.source.stop()
        self.results.append(result)
        self.images.append(images)

    def stalled(self, seconds: float) -> None:
        self.stalls.append(seconds)

    def close(self) -> None:
        self.closed += 1


def classify(images: list) -> list:
    """Call every face masked."""
    return [(np.array([[0.9, 0.1]] * len(boxes)).reshape(-1, 2), np.ones(len(boxes))) for _, boxes in images]


def channel(source: VideoSource, outputs: list) -> Channel:
    return Channel(
        source, MaskTracker(lambda image, boxes: classify([(image, boxes)])[0], CLASSES, 25.0), outputs, ZoneFilter([], "frames")
    )


def run(
    source: VideoSource, outputs: list, faces=(FACE,), hide: bool = False, max_frames: int | None = None, workers: int = 2
) -> None:
    Session([channel(source, outputs)], lambda image: list(faces), classify, workers, hide).run(max_frames)


@pytest.mark.parametrize("is_live", [False, True])
def test_every_output_receives_every_frame_in_order(is_live):
    outputs = [Output(), Output()]
    run(Source(20, is_live), outputs)
    for output in outputs:
        assert [(result.number, result.time) for result in output.results] == [(number, number / 25) for number in range(20)]
        assert [[face.track for face in result.faces] for result in output.results] == [[None]] + [[1]] * 19


def test_images_show_the_faces_of_the_frame():
    output = Output()
    run(Source(1), [output])
    (images,) = output.images
    assert images.result is output.results[0] and (images.plain == 0).all()
    assert tuple(images.annotated[80, 110]) == (115, 158, 0)  # the box, in the colour of a mask


def images_of(images: FrameImages) -> list[np.ndarray]:
    """Return everything that outputs may show of a frame."""
    return [images.plain, images.annotated, images.marked(1)]


@pytest.mark.parametrize("hide", [False, True])
def test_faces_are_hidden_in_the_image(hide):
    """Those that are too uncertain to be reported too."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    uncertain = Face((200, 20, 230, 50), 0.15)

    class Noise(Source):
        def _read(self):
            yield Frame(0, 0.0, noise)

    output = Output()
    run(Noise(1), [output], [FACE, uncertain], hide)
    assert len(output.results[0].faces) == 1
    for x1, y1, x2, y2 in ((105, 85, 125, 105), (205, 25, 225, 45)):
        for image in images_of(output.images[0]):
            assert (len(np.unique(image[y1:y2, x1:x2].reshape(-1, 3), axis=0)) <= 25) == hide


def test_place_of_a_face_that_is_not_detected_any_more_is_hidden():
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)

    class Noise(Source):
        def _read(self):
            yield from (Frame(number, number / 25, noise) for number in range(10))

    faces = iter([[FACE]] * 5 + [[]] * 5)
    output = Output()
    Session([channel(Noise(10), [output])], lambda image: next(faces), classify, 1, hide=True).run()
    assert [len(result.faces) for result in output.results] == [1] * 5 + [0] * 5
    for image in [image for images in output.images for image in images_of(images)]:
        assert len(np.unique(image[85:105, 105:125].reshape(-1, 3), axis=0)) <= 25


def test_stall_reaches_every_output():
    outputs = [Output(), Output()]
    run(Source(5, stall_before=2), outputs)
    assert [output.stalls for output in outputs] == [[3.0], [3.0]]


def test_max_frames():
    output = Output()
    run(Source(50), [output], max_frames=7)
    assert [result.number for result in output.results] == list(range(7))


def test_stopped_source_ends_with_the_frame_at_hand():
    """Frames that were read ahead are dropped."""
    source = Source(50)
    output = Output(stop_at=5, source=source)
    run(source, [output])
    assert [result.number for result in output.results] == list(range(6))
    assert source.given > 6


def test_error_of_an_output_ends_the_session():
    first, second = Output(), Output(fail_at=3)
    with pytest.raises(InputError, match="full"):
        run(Source(20), [first, second])
    assert (len(first.results), len(second.results)) == (4, 3)


def test_outputs_are_context_managers():
    output = Output()
    with pytest.raises(KeyError), output:
        raise KeyError
    assert output.closed == 1


def test_live_source_has_no_frames_read_ahead():
    source, given = Source(20, is_live=True), []

    class Counting(Output):
        def write(self, result: FrameResult, images: FrameImages) -> None:
            given.append(source.given)

    run(source, [Counting()], workers=1)
    assert given == list(range(1, 21))


class Faces:
    """A face detector that keeps what it is asked for."""

    size, max_faces, name = 512, 1000, "faces"

    def __init__(self) -> None:
        self.calls = []

    def detect(self, image: np.ndarray, confidence: float = 0.5, size: int | None = None) -> list[Face]:
        self.calls.append((confidence, size))
        return []


@pytest.mark.parametrize(("hide", "confidence", "expected"), [(False, 0.5, 0.25), (True, 0.5, 0.1), (True, 0.1, 0.05)])
def test_less_confident_faces_are_detected_for_tracking_and_hiding(hide, confidence, expected):
    faces = Faces()
    face_detection(faces, confidence, hide)(np.zeros((1080, 1920, 3), np.uint8))
    assert faces.calls == [(expected, None)]  # another network than ours has one size


def test_small_faces_are_hidden_too():
    """An image of 1920 px is scaled to 960 px in place of 576 px, unless a size was asked for."""
    faces = load_face_detector(ROOT / "face_detector" / "masked_faces_ssd.onnx")
    image = np.full((1080, 1920, 3), 128, np.uint8)
    image[400:526, 700:940] = cv2.resize(cv2.imread(str(EXAMPLES / "people.jpg")), (240, 126))
    numbers = [len(face_detection(faces, 0.5, hide, size)(image)) for hide, size in ((True, None), (True, 576), (False, None))]
    assert numbers[0] >= 8 > max(numbers[1:])
    assert faces.size == 576  # several threads share the detector
