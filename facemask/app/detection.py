"""What the page shows of an image: the records of the image script, boxes for the browser to draw, and a preview."""

import threading
import time
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import cv2

from facemask.detector import MaskDetector, shrink
from facemask.drawing import draw_detections, shown_face
from facemask.errors import InputError
from facemask.images.outputs import truncation_warning
from facemask.io.find_images import WRITTEN_SUFFIXES
from facemask.io.images import EncodedImage, encode_image
from facemask.io.json_lines import json_line
from facemask.io.records import image_record, write_rows
from facemask.labels import display_name
from facemask.types import FileResult

PREVIEW_SIDE = 1920  # px, the longest side of the image that the page shows
PREVIEW_QUALITY = 85  # of JPEG
LOSSLESS = ".png"  # holds what no other format can


@dataclass(frozen=True)
class Shown:
    """What the page gets of an image."""

    head: dict  # for JSON
    preview: bytes  # JPEG, upright; empty for a frame


class PageDetector:
    """Detects in the images of several browsers, one after the other: the networks use all cores for each."""

    def __init__(self, detector: MaskDetector, confidence: float, max_pixels: int) -> None:
        """`confidence`, 0..1, is the minimum of a face; images of more than `max_pixels` are refused."""
        self._detector, self._confidence, self._max_pixels = detector, confidence, max_pixels
        self._frame_detector = replace(detector, turned_faces=None)
        self._turn = threading.Lock()

    def detect(self, name: str, data: bytes, is_frame: bool = False) -> Shown:
        """Detect in `data`, the content of an image file called `name`. Raises InputError as `detect_file`.

        A frame of the browser's camera is upright, and the browser has it: it is not checked for turns, and gets no preview.
        """
        detector = self._frame_detector if is_frame else self._detector
        with self._turn:
            start = time.perf_counter()
            encoded = EncodedImage.parse(name, data, self._max_pixels)
            scale = encoded.decode_scale(PREVIEW_SIDE)
            result = self._detect(detector, encoded, keep_image=scale == 1 and not is_frame)
            seconds = time.perf_counter() - start
            preview = b""
            if not is_frame:
                image = encoded.decode(scale) if result.image is None else result.image
                preview = encode_image(shrink(image, PREVIEW_SIDE), ".jpg", [cv2.IMWRITE_JPEG_QUALITY, PREVIEW_QUALITY]) or b""
        record = image_record(name, result)
        table = StringIO(newline="")
        write_rows(table, [record])
        head = {
            "width": result.width,
            "height": result.height,
            "seconds": seconds,
            "faces": [shown_face(face) | {"name": display_name(face.label, face.is_unsure)} for face in result.detections],
            "note": truncation_warning(name, result),
            "json": json_line(record).decode(),
            "csv": table.getvalue(),
        }
        return Shown(head, preview)

    def annotate(self, name: str, data: bytes) -> tuple[str, bytes]:
        """Return the suffix and the bytes of the annotated image, in the format of its name; in JPEG if that one is not written.

        PNG takes its place for what the format cannot hold. Raises InputError as `detect_file`.
        """
        with self._turn:
            result = self._detect(self._detector, EncodedImage.parse(name, data, self._max_pixels), keep_image=True)
            assert result.image is not None
            annotated = draw_detections(result.image, result.detections)
            suffix = Path(name).suffix
            for written in (suffix if suffix.lower() in WRITTEN_SUFFIXES else ".jpg", LOSSLESS):
                if encoded := encode_image(annotated, written):
                    return written, encoded
        raise InputError(f"{name}: its annotated image cannot be written; make it smaller")

    def _detect(self, detector: MaskDetector, encoded: EncodedImage, keep_image: bool) -> FileResult:
        return detector.detect_file(encoded, self._confidence, max_pixels=self._max_pixels, keep_image=keep_image)
