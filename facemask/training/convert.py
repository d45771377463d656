"""Convert a data set from any of the formats to any other."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from facemask.errors import InputError
from facemask.io.images import read_image
from facemask.io.outputs import make_folder
from facemask.models.face_detectors import FaceDetector
from facemask.training.dataset import AnnotatedPhoto, ClassPhoto, Photo
from facemask.training.formats import FORMATS, read_dataset

BOX_FORMATS = ("coco", "voc", "yolo")  # that cannot hold a photo by class

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Converted:
    """What was written."""

    photos: int
    left_out: int  # photos by class in which the face detector does not find exactly one face


def convert(source: Path, output: Path, name: str, face_detector: FaceDetector | None) -> Converted:
    """Read a data set and write it into a new folder, in the format of that name, whole or not at all; photos are copied.

    Photos by class get the box of their one face, by `face_detector`, where the format needs boxes; those without exactly
    one are left out. Raises InputError if the data set cannot be read, or if the folder exists.
    """
    partial = output.with_name(f"{output.name}.partial")
    for folder in (output, partial):
        if folder.exists():
            raise InputError(f"{folder}: exists already; remove it, or name another folder")
    photos = read_dataset(source)
    chosen: Sequence[Photo] = photos
    if name in BOX_FORMATS and face_detector is not None:
        chosen = [boxed for photo in tqdm(photos, unit="image", disable=None) if (boxed := _with_box(photo, face_detector))]
    make_folder(partial)
    next(each for each in FORMATS if each.name == name).write(chosen, partial)
    partial.rename(output)
    return Converted(len(chosen), len(photos) - len(chosen))


def _with_box(photo: Photo, face_detector: FaceDetector) -> AnnotatedPhoto | None:
    """Return a photo by class with the box of its one face; None if the detector finds none or several, or cannot read it."""
    if not isinstance(photo, ClassPhoto):
        return photo
    try:
        faces = face_detector.detect(read_image(photo.path))
    except InputError as error:
        logger.warning("skipped: %s", error)
        return None
    return (
        AnnotatedPhoto(photo.path, np.array([faces[0].box], float), photo.labels, split=photo.split) if len(faces) == 1 else None
    )
