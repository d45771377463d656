"""The sets of photos that a detector is evaluated on: annotated, without faces, or by class folder."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import numpy as np

from facemask.errors import InputError
from facemask.labels import BACKGROUND
from facemask.training.data_files import list_photos, report_others
from facemask.training.dataset import AnnotatedPhoto, Photo, rename_labels
from facemask.training.formats import find_dataset, read_dataset

logger = logging.getLogger(__name__)


class Kind(Enum):
    """What is known of the photos of a set."""

    ANNOTATED = "annotated"  # each face has a box and a label
    NO_FACES = "no faces"  # each detection is a false positive
    CLASS_FOLDERS = "class folders"  # the largest face has the label of the photo, which its folder is named after


@dataclass(frozen=True)
class EvaluationSet:
    """Photos to evaluate on; only those of an annotated set have boxes."""

    name: str
    kind: Kind
    photos: list[AnnotatedPhoto]
    iou_threshold: float  # of a detection and the face that it finds
    labels: Mapping[Path, str] = field(default_factory=dict)  # of photos with a class


def read_set(
    folder: Path, names: Sequence[str] | None, new_labels: Mapping[str, str], iou_threshold: float, name: str
) -> EvaluationSet:
    """List the photos of a folder. Its layout decides their kind.

    Those of a format with boxes are annotated; `names` keeps those with these stems, `new_labels` renames classes. Photos in
    the folder itself or in `images/`, without annotations, show no faces. Others have a class. Of a set with splits, only
    the test split is used (or else validation), unless `names` are given. Raises InputError if the folder has no photos, or
    an annotation cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one of photos")
    _, kind = find_dataset(folder)
    if kind is None or kind.name == "folders":
        for place in (folder / "images", folder):
            others: Counter[str] = Counter()
            paths = list_photos(place, others) if place.is_dir() else []
            if paths:
                report_others(place, others)
                return EvaluationSet(name, Kind.NO_FACES, [_without_boxes(path) for path in paths], iou_threshold)
    photos = read_dataset(folder, names)
    if names is None:
        photos = _held_out(folder, photos)
    annotated = [photo for photo in photos if isinstance(photo, AnnotatedPhoto)]
    if annotated:
        if len(annotated) < len(photos):
            count = len(photos) - len(annotated)
            logger.warning("%s: %d photos have a class and no box, unlike the others: not used", folder, count)
        annotated, _ = rename_labels(annotated, new_labels)
        return EvaluationSet(name, Kind.ANNOTATED, [_without_background(photo) for photo in annotated], iou_threshold)
    labels = {photo.path: new_labels.get(photo.labels[0], photo.labels[0]) for photo in photos}
    chosen = [_without_boxes(path) for path, label in labels.items() if label]
    return EvaluationSet(name, Kind.CLASS_FOLDERS, chosen, iou_threshold, labels)


def _held_out(folder: Path, photos: Sequence[Photo]) -> Sequence[Photo]:
    """Return the photos of the split that a data set holds out, `test` or else `validation`; all if it has no splits."""
    for split in ("test", "validation"):
        chosen = [photo for photo in photos if photo.split == split]
        if chosen:
            logger.info("%s: measured on its %s split, %d of %d photos", folder, split, len(chosen), len(photos))
            return chosen
    return photos


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
