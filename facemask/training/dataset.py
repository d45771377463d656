"""The photos of data sets: with annotated faces, or with one class; renamed and limited. `formats` reads them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from facemask.errors import InputError
from facemask.labels import BACKGROUND

IGNORE = "ignore"  # name of an object that is neither a face to learn nor a false positive, as WIDER FACE's tiny faces
SPLITS = ("train", "validation", "test")
MAX_COORDINATE = 1e6  # px: a box with a side farther out is a mistake
EXPECTED_LAYOUT = "expected one folder per class, or photos with annotations in Pascal VOC, YOLO, COCO or CSV"


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo and its annotated faces: float boxes x1, y1, x2, y2 in pixels of the photo, as annotated."""

    path: Path
    boxes: np.ndarray  # (n, 4)
    labels: tuple[str, ...]  # n class names
    # (k, 4), marked difficult or to be ignored: not learnt from, not counted
    ignored: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))
    split: str = ""  # train, validation or test as the data set says; "" if it does not

    @property
    def faces(self) -> list[tuple[str, np.ndarray]]:
        """Return label and box of each face, and of the boxes to be ignored, whose label is IGNORE."""
        return [*zip(self.labels, self.boxes, strict=True), *((IGNORE, box) for box in self.ignored)]


@dataclass(frozen=True)
class ClassPhoto:
    """A photo in the folder of its class; where its face is, is not known."""

    path: Path
    label: str
    split: str = ""  # as of AnnotatedPhoto

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the class name of its one face."""
        return (self.label,)


Photo = AnnotatedPhoto | ClassPhoto
PhotoType = TypeVar("PhotoType", bound=Photo)


def annotated_photo(path: Path, faces: Iterable[tuple[str, Sequence[float], bool]], split: str = "") -> AnnotatedPhoto:
    """Return a photo with its faces: label, box x1, y1, x2, y2 in pixels, and whether it is to be ignored.

    Raises ValueError as `check_face`.
    """
    boxes, labels, ignored = [], [], []
    for label, box, is_ignored in faces:
        check_face(label, box)
        if is_ignored or label == IGNORE:
            ignored.append(box)
        else:
            boxes.append(box)
            labels.append(label)
    return AnnotatedPhoto(path, _as_boxes(boxes), tuple(labels), _as_boxes(ignored), split)


def check_face(label: str, box: Sequence[float]) -> None:
    """Raise ValueError if a label is not a name, or if a side of a box is not a number or far outside of any photo."""
    if not all(abs(side) < MAX_COORDINATE for side in box):
        raise ValueError(f"box {list(box)}")
    if not label.isprintable() or not label:
        raise ValueError(f"name {label!r}")


def _as_boxes(boxes: Sequence) -> np.ndarray:
    return np.array(boxes, float).reshape(-1, 4)


def rename_labels(photos: Sequence[PhotoType], new_names: Mapping[str, str]) -> tuple[list[PhotoType], Counter[str]]:
    """Rename classes, as {"face": "without_mask"}; a class with the new name "" is dropped.

    Dropped boxes of annotated photos are ignored boxes then; photos in a class folder are left out. Returns the photos,
    and the number of faces dropped by their old class name. Raises InputError for a class that no face has.
    """
    counts = Counter(label for photo in photos for label in photo.labels)
    for name in new_names.keys() - counts.keys():
        raise InputError(f"--rename: no face has the label {name}; the data sets have {', '.join(sorted(counts))}")
    dropped = Counter({name: counts[name] for name, new in new_names.items() if not new})
    renamed: list[PhotoType] = []
    for photo in photos:
        labels = tuple(new_names.get(label, label) for label in photo.labels)
        if isinstance(photo, AnnotatedPhoto):
            kept = np.array([bool(label) for label in labels], bool)
            ignored = np.concatenate([photo.ignored, photo.boxes[~kept]])
            renamed.append(replace(photo, boxes=photo.boxes[kept], labels=tuple(filter(None, labels)), ignored=ignored))
        elif labels[0]:
            renamed.append(replace(photo, label=labels[0]))
    return renamed, dropped


def limit_faces(photos: Sequence[Photo], folder: Path, limit: int, seed: int) -> tuple[list[Photo], int]:
    """Keep at most `limit` of the faces in a folder, chosen at random by `seed`; photos elsewhere stay as they are.

    The other annotated faces are ignored boxes then; photos in a class folder are left out. Returns the photos and the
    number of faces that were in the folder. Raises InputError if the folder has no faces.
    """
    inside = [photo.path.is_relative_to(folder) for photo in photos]
    count = sum(len(photo.labels) for photo, is_inside in zip(photos, inside, strict=True) if is_inside)
    if not count:
        raise InputError(f"--limit: no face of the data sets is in {folder}; give a folder of -d, or one in it")
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[:limit]] = True
    kept_photos, first = [], 0
    for photo, is_inside in zip(photos, inside, strict=True):
        if not is_inside:
            kept_photos.append(photo)
            continue
        kept = chosen[first : first + len(photo.labels)]
        first += len(photo.labels)
        if isinstance(photo, AnnotatedPhoto):
            labels = tuple(label for label, is_kept in zip(photo.labels, kept, strict=True) if is_kept)
            ignored = np.concatenate([photo.ignored, photo.boxes[~kept]])
            kept_photos.append(replace(photo, boxes=photo.boxes[kept], labels=labels, ignored=ignored))
        elif kept.all():
            kept_photos.append(photo)
    return kept_photos, count


def class_names(photos: Iterable[Photo]) -> list[str]:
    """Return the labels in the order that the model's outputs will have: sorted.

    Raises InputError for fewer than two labels of faces, and for labels that differ only in case.
    """
    classes = sorted({label for photo in photos for label in photo.labels})
    for first, second in pairwise(sorted(classes, key=str.casefold)):
        if first.casefold() == second.casefold():
            raise InputError(f"dataset: the labels {first} and {second} differ only in case; rename one of them")
    if len(set(classes) - {BACKGROUND}) < 2:
        more = f", two classes or more besides {BACKGROUND}" if BACKGROUND in classes else ", two classes or more"
        raise InputError(f"dataset: found only one class ({', '.join(classes)}); {EXPECTED_LAYOUT}{more}")
    return classes
