"""Prepare a training: photos to crops to splits. What is skipped on the way is reported once, with a count."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from facemask.errors import InputError
from facemask.models.face_detectors import FaceDetector
from facemask.training.crops import MIN_FACE, Crop, load_crops
from facemask.training.dataset import AnnotatedPhoto, Photo, limit_faces, rename_labels
from facemask.training.formats import read_dataset
from facemask.training.split import DUPLICATE_THRESHOLDS, Split, shared_groups, split_crops

logger = logging.getLogger(__name__)


def read_photos(
    names_by_folder: Mapping[Path, Sequence[str] | None],
    new_labels: Mapping[str, str],
    limits: Sequence[tuple[Path, int]],
    seed: int,
) -> list[Photo]:
    """List the photos of data sets: of each folder those with these names (None: all).

    `new_labels` renames classes, as for `rename_labels`; `limits` is the maximum number of faces by folder, as for
    `limit_faces`. Raises InputError if a folder or an annotation cannot be read.
    """
    photos = [photo for folder, names in names_by_folder.items() for photo in read_dataset(folder, names)]
    ignored = sum(len(photo.ignored) for photo in photos if isinstance(photo, AnnotatedPhoto))
    if ignored:
        logger.info("%d faces marked difficult or to be ignored: not used", ignored)
    photos, dropped = rename_labels(photos, new_labels)
    for name, count in dropped.items():
        logger.info("%d faces of class %s: not used (--rename)", count, name)
    for folder, limit in limits:
        photos, count = limit_faces(photos, folder, limit, seed)
        logger.info("%d of %d faces in %s used (--limit)", min(limit, count), count, folder)
    return photos


def cut_faces(photos: Sequence[Photo], face_detector: FaceDetector, size: int, *, workers: int, max_pixels: int) -> list[Crop]:
    """Decode the photos and cut their faces out, as `load_crops`. Raises InputError if no photo gives any."""
    loaded = load_crops(
        photos,
        face_detector,
        size,
        workers=workers,
        max_pixels=max_pixels,
        progress=lambda items: tqdm(items, desc="cutting out faces", unit="image", disable=None),
    )
    for message in loaded.unreadable:
        logger.warning("skipped: %s", message)
    if loaded.unreadable:
        logger.warning("%d of %d photos could not be read", len(loaded.unreadable), len(photos))
    if loaded.small:
        logger.info("%d annotated faces below %d px: not used", loaded.small, MIN_FACE)
    if loaded.outside:
        logger.warning("%d annotated boxes are empty or outside their photo: not used", loaded.outside)
    if not loaded.crops:
        raise InputError("dataset: no photo could be read, or none has a face; see the warnings above")
    return loaded.crops


def split_by_similarity(
    features: np.ndarray, crops: Sequence[Crop], classes: Sequence[str], seed: int
) -> tuple[Split, np.ndarray]:
    """Split the crops as `split_crops`, and warn if near-duplicates may be in two splits; returns split and groups (n,)."""
    split, groups, threshold = split_crops(features, crops, classes, seed)
    for name, indices in asdict(split).items():
        lacking = sorted(set(classes) - {crops[index].label for index in indices})
        if lacking and name != "test":
            raise InputError(f"dataset: the {name} split has no face of {', '.join(lacking)}; add some, or remove the class")
        if lacking:
            logger.warning("the test split has no face of %s: the report says nothing about it", ", ".join(lacking))
    is_given = any(crop.split for crop in crops)
    if is_given:
        logger.info("%d crops stay in the splits that their data sets give", sum(bool(crop.split) for crop in crops))
    duplicates = shared_groups(split, groups) if is_given else 0
    if duplicates:
        logger.warning(
            "%d of %d crops of the test split look like one that is learnt from or validated by: the report is too good",
            duplicates, len(split.test),
        )  # fmt: skip
    elif threshold > DUPLICATE_THRESHOLDS[0]:
        found = (
            "only crops of one photo are grouped" if math.isinf(threshold) else f"similarity below {threshold:g} is not grouped"
        )
        logger.warning("the photos are similar: near-duplicates may be in two splits (%s), and the report is too good", found)
    return split, groups
