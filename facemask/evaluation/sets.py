"""The sets of photos that a detector is evaluated on: annotated, without faces, or by class folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np

from facemask.errors import InputError
from facemask.io.find_images import IMAGE_SUFFIXES
from facemask.labels import BACKGROUND
from facemask.training.dataset import AnnotatedPhoto, read_annotated_photos, read_class_folders, rename_labels


class Kind(Enum):
    """What is known of the photos of a set."""

    ANNOTATED = "annotated"  # each face has a box and a label
    NO_FACES = "no faces"  # each detection is a false positive
    CLASS_FOLDERS = "class folders"  # the largest face has the label that the photo's folder is named after


@dataclass(frozen=True)
class EvaluationSet:
    """Photos to evaluate on; only those of an annotated set have boxes."""

    name: str
    kind: Kind
    photos: list[AnnotatedPhoto]
    iou_threshold: float  # of a detection and the face that it finds


def read_set(
    folder: Path, names: Sequence[str] | None, new_labels: Mapping[str, str], iou_threshold: float, name: str
) -> EvaluationSet:
    """List the photos of a folder. Its layout decides their kind.

    With `annotations/` they are annotated (Pascal VOC); `names` keeps those with these stems, `new_labels` renames classes.
    Photos in the folder itself or in `images/`, without annotations, show no faces. Otherwise each folder is a class.
    Raises InputError if the folder has no photos, or an annotation cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one of photos")
    if (folder / "annotations").is_dir():
        photos, _ = rename_labels(read_annotated_photos(folder, names), new_labels)
        return EvaluationSet(name, Kind.ANNOTATED, [_without_background(photo) for photo in photos], iou_threshold)
    for place in (folder / "images", folder):
        paths = sorted(path for path in place.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if paths:
            return EvaluationSet(name, Kind.NO_FACES, [_without_boxes(path) for path in paths], iou_threshold)
    paths = [photo.path for photo in read_class_folders(folder)]
    return EvaluationSet(name, Kind.CLASS_FOLDERS, [_without_boxes(path) for path in paths], iou_threshold)


def _without_boxes(path: Path) -> AnnotatedPhoto:
    return AnnotatedPhoto(path, np.empty((0, 4)), ())


def _without_background(photo: AnnotatedPhoto) -> AnnotatedPhoto:
    """Remove boxes that show no face: a detection there is a false positive."""
    is_face = np.array([label != BACKGROUND for label in photo.labels], bool)
    return replace(photo, boxes=photo.boxes[is_face], labels=tuple(label for label in photo.labels if label != BACKGROUND))


def set_names(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each folder: its own, or its path if another folder has the same name."""
    own = [folder.resolve().name for folder in folders]
    return [name if own.count(name) == 1 else str(folder) for name, folder in zip(own, folders, strict=True)]
