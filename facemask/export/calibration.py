"""Inputs of both networks, made of photos, from which the ranges of 8-bit integers are taken."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from facemask.boxes import crop_face
from facemask.errors import InputError
from facemask.io.images import read_image
from facemask.models.face_detectors import load_face_detector
from facemask.models.model_info import ModelInfo

SCALES = (1.0, 0.6, 0.35)  # of the face detector's input that an image fills
GAINS, SHIFTS = (0.6, 1.0, 1.3), (-0.1, 0.0, 0.1)  # of brightness; of a face's box, as a part of its width
MAX_PHOTOS = 200


def calibration_inputs(
    photos: Sequence[Path], face_detector: Path, size: int, info: ModelInfo
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return inputs of the face detector, (1, size, size, 3), and of the classifier, (1, s, s, 3), float32 RGB 0..255.

    The faces are those that the face detector finds in the photos, of which at most MAX_PHOTOS are used. Raises InputError if
    none has a face.
    """
    detector = load_face_detector(face_detector)
    images, crops = [], []
    for photo in photos[:MAX_PHOTOS]:
        image = read_image(photo)
        images += [to_input(square_input(view, size, scale)) for view in (image, image[:, ::-1]) for scale in SCALES]
        for face in detector.detect(image):
            x1, y1, x2, y2 = face.box
            for shift in SHIFTS:
                box = (x1 + shift * (x2 - x1), y1, x2 + shift * (x2 - x1), y2)
                crop = crop_face(image, box, info.input_size, info.margin)
                crops += [to_input(np.clip(crop * gain, 0, 255)) for gain in GAINS]
    if not crops:
        raise InputError(f"-d: no face was found in {len(photos)} photos; give photos of faces")
    return images, crops


def square_input(image: np.ndarray, size: int, scale: float = 1.0) -> np.ndarray:
    """Return an image, uint8 (H, W, 3), whose longest side is `size` x `scale` px, in a black square of `size` px, top left."""
    factor = size * scale / max(image.shape[:2])
    height, width = (max(round(side * factor), 1) for side in image.shape[:2])
    square = np.zeros((size, size, 3), np.uint8)
    square[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return square


def to_input(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) BGR as float32 (1, H, W, 3) RGB."""
    return np.ascontiguousarray(image[None, ..., ::-1], np.float32)
