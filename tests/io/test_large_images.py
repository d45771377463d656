"""Images so large that several in memory would be too many are worked on one at a time."""

import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import detect_mask_image
from facemask.io.images import is_large
from facemask.models.center_face import CenterFaceDetector

LARGE = 1 << 25  # pixels
OVERLAP = 0.3  # s that the large image waits for another to be begun: none is


def write_images(folder: Path) -> list[Path]:
    """Write three images, of which the second is large; return their names."""
    paths = [folder / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    for path, (height, width) in zip(paths, [(96, 96), (LARGE // 4096, 4100), (96, 96)], strict=True):
        assert cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
    return paths


class Concurrency:
    """Counts calls that go on at the same time; the one for a large image waits to see whether another begins."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.overlapped = False
        self._running = 0
        self._changed = threading.Condition()

    def enter(self, is_large: bool) -> None:
        with self._changed:
            self._running += 1
            self.order.append("large" if is_large else "small")
            self._changed.notify_all()
            if is_large:
                self.overlapped |= self._changed.wait_for(lambda: self._running > 1, OVERLAP)

    def leave(self) -> None:
        with self._changed:
            self._running -= 1


@pytest.mark.parametrize(
    ("width", "height", "large"),
    [
        pytest.param(4096, 8192, False, id="33.5 megapixels"),
        pytest.param(4097, 8192, True, id="more"),
        pytest.param(96, 96, False, id="small"),
    ],
)
def test_is_large_by_its_pixels(tmp_path, width, height, large):
    """The header tells: the pixels need not be there."""
    path = tmp_path / "a.png"
    data = bytearray(cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    path.write_bytes(data)
    assert is_large(path) is large


@pytest.mark.parametrize(("size", "large"), [(1 << 26, False), ((1 << 26) + 1, True)], ids=["64 MiB", "more"])
def test_is_large_by_its_bytes(tmp_path, size, large):
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes())
    with path.open("r+b") as file:
        file.truncate(size)  # zeros that take no room on the disk
    assert is_large(path) is large


@pytest.mark.parametrize("content", [None, b"", b"text"], ids=["missing", "empty", "text"])
def test_what_is_no_image_is_not_large(tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    assert is_large(path) is False


def test_image_script_works_on_a_large_image_alone(tmp_path, monkeypatch):
    images, seen, detect = write_images(tmp_path), Concurrency(), CenterFaceDetector.detect

    def observed(self, image, *arguments):
        seen.enter(image.shape[1] > 96)
        try:
            return detect(self, image, *arguments)
        finally:
            seen.leave()

    monkeypatch.setattr(cv2, "getNumberOfCPUs", lambda: 3)  # as many workers
    monkeypatch.setattr(CenterFaceDetector, "detect", observed)
    records = tmp_path / "out.jsonl"
    assert detect_mask_image.main(["-i", *map(str, images), "--turns", "off", "--jsonl", str(records)]) == 0
    assert [Path(json.loads(line)["image"]).name for line in records.read_text().splitlines()] == ["a.jpg", "b.jpg", "c.jpg"]
    assert seen.order == ["small", "large", "small"] and not seen.overlapped
