"""Collect images that are worth labelling, with the boxes and labels that the detector gave them."""

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from facemask.io.annotations import voc_xml, yolo_lines
from facemask.io.images import write_image
from facemask.io.outputs import make_folder, text_output
from facemask.types import Detection

UNSURE_FACE = 0.7  # confidence of a face below which it may be none
RANDOM_SHARE = 0.01  # of the other images: without them the labels that are sure and wrong would never be seen
THUMBNAIL = 16  # px, side of the grey images that are compared
# Mean difference of two thumbnails, of 255, from which images differ: frames of a still camera, people gone, differ by less.
MIN_DIFFERENCE = 6.0
DATA_YAML = "data.yaml"

logger = logging.getLogger(__name__)


class Collector:
    """Writes `images/`, `labels/` and data.yaml (YOLO) and `annotations/` (Pascal VOC) of a folder, image by image.

    An image is worth labelling if a label or a face is unsure, if its caller says so, or by chance. An image that is nearly
    the same as one before never is.
    """

    def __init__(self, folder: Path, classes: Sequence[str], limit: int | None, seed: int = 0) -> None:
        """`classes` are all labels of the model. Images of earlier runs count to the `limit`; None is no limit.

        Raises InputError if it cannot be written.
        """
        self.folder, self.classes, self._limit = folder, list(classes), limit
        self._random = random.Random(seed)
        for name in ("images", "labels", "annotations"):
            make_folder(folder / name)
        with text_output(folder / DATA_YAML) as file:  # JSON is YAML
            json.dump({"train": "images", "val": "images", "nc": len(self.classes), "names": self.classes}, file)
        with text_output(folder / "classes.txt") as file:  # what Label Studio's converter asks for
            file.writelines(f"{name}\n" for name in self.classes)
        self._thumbnails: list[np.ndarray] = []
        for path in sorted((folder / "images").glob("*.jpg")):
            image = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_2)
            if image is not None:
                self._thumbnails.append(thumbnail(image))
        self.reasons: dict[str, int] = {}  # why images were written, and how many

    def consider(self, image: np.ndarray, faces: Sequence[Detection], name: str, reason: str = "") -> bool:
        """Write an image, uint8 (H, W, 3) BGR, if it is worth labelling; return whether it was.

        `name` is the file's without suffix. `reason` says why the caller wants it. Raises InputError or OutputError if it
        cannot be written.
        """
        reason = reason or self._reason(faces)
        if not reason or (self._limit is not None and len(self._thumbnails) >= self._limit):
            return False
        small = thumbnail(image)
        if not self.is_new(small):
            return False
        name = "".join(char if char.isalnum() or char in "-_." else "_" for char in name)[-100:]
        while (self.folder / "images" / f"{name}.jpg").exists():
            name += "_"
        height, width = image.shape[:2]
        labelled = [(face.label, face.box) for face in faces]
        # The image is last: without it the others do not count.
        with text_output(self.folder / "labels" / f"{name}.txt") as file:
            file.write(yolo_lines(width, height, labelled, self.classes))
        with text_output(self.folder / "annotations" / f"{name}.xml") as file:
            file.write(voc_xml(f"{name}.jpg", width, height, labelled))
        write_image(self.folder / "images" / f"{name}.jpg", image)
        self._thumbnails.append(small)
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if len(self._thumbnails) == self._limit:
            logger.warning("%s: holds %d images: no more are collected; --collect-limit raises this", self.folder, self._limit)
        return True

    def is_new(self, small: np.ndarray) -> bool:
        """Return whether an image with this thumbnail is unlike all in the folder."""
        return not any(is_alike(small, other) for other in self._thumbnails)

    def _reason(self, faces: Sequence[Detection]) -> str:
        if any(face.is_unsure for face in faces):
            return "unsure label"
        if any(face.confidence < UNSURE_FACE for face in faces):
            return "unsure face"
        return "by chance" if self._random.random() < RANDOM_SHARE else ""

    def summary(self) -> str:
        """Return one line on what was written."""
        counts = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        line = f"{sum(self.reasons.values())} images to label in {self.folder}{f' ({counts})' if counts else ''}"
        return f"{line}; correct them: python -m facemask review {self.folder}" if counts else line


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return an image, uint8 (H, W, 3) BGR, as float32 (`THUMBNAIL`, `THUMBNAIL`), grey, 0..255."""
    grey = cv2.cvtColor(cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    return grey.astype(np.float32)


def is_alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether two thumbnails are those of near-duplicates."""
    return bool(np.abs(first - second).mean() < MIN_DIFFERENCE)
