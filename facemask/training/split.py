"""Split crops into training, validation and test, near-duplicates together."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from facemask.errors import InputError
from facemask.training.crops import Crop, class_indices

# Cosine similarity of backbone features from which two crops count as near-duplicates. Of the pairs that were inspected
# among the tutorial's photos, all above 0.90 were near-duplicates, half of those at 0.87, none at 0.83. Photos of few people
# from one camera are all alike: the higher thresholds serve where the lower ones leave too few groups to split.
# The features of a fine-tuned model make all faces of a class alike: then only crops of one photo are grouped (infinity).
DUPLICATE_THRESHOLDS = (0.86, 0.9, 0.94, 0.98, math.inf)
# Parts of the crops that training, and each of the others, must have: one huge group would leave few to learn from, or only
# odd ones to choose and measure by.
MIN_TRAINING, MIN_HELD_OUT = 0.7, 0.05
FOLDS = 10  # tenths of the data: 8 for training, 1 for validation, 1 for test
PARTS = (0.8, 0.1, 0.1)
# Of a class: less than half of it in training leaves a test of what was hardly learnt.
MIN_OF_CLASS = 0.5
MAX_DEVIATION = 0.06  # of a class's part in a split from PARTS, from which another division is tried
ATTEMPTS, ATTEMPT_SEEDS = 20, 1000  # divisions that are tried, and between their seeds
MANY = 2000  # crops from which one division is near enough, and the only one tried


@dataclass(frozen=True)
class Split:
    """Indices of the crops in each split; no photo is in two splits, nor are near-duplicates of one photo."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def names(self, count: int) -> list[str]:
        """Return the name of the split that each of `count` crops is in."""
        names = [""] * count
        for name, indices in asdict(self).items():
            for index in indices:
                names[index] = name
        return names

    def fingerprint(self, crops: Sequence[Crop]) -> str:
        """Return a checksum of which crop is in which split."""
        splits = [(str(crop.path), crop.face_id, name) for crop, name in zip(crops, self.names(len(crops)), strict=True)]
        return hashlib.sha256(json.dumps(splits).encode()).hexdigest()


def group_near_duplicates(features: np.ndarray, paths: Sequence[Path], threshold: float = DUPLICATE_THRESHOLDS[0]) -> np.ndarray:
    """Give crops of one photo, and of photos that look the same, the same group number; returns (n,) int.

    `features` is (n, d): the output of an ImageNet backbone for each crop. Unlike perceptual hashes they also match
    rotated, mirrored and recoloured copies.
    """
    count = len(features)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    rows, columns = [], []
    for start in range(0, count, 1024):  # a block of rows at a time bounds the memory
        similar = unit[start : start + 1024] @ unit.T >= threshold
        row, column = np.nonzero(np.triu(similar, k=start + 1))  # each pair once
        rows.append((row + start).astype(np.int32))
        columns.append(column.astype(np.int32))
    first_of_path: dict[Path, int] = {}
    rows.append(np.arange(count, dtype=np.int32))
    columns.append(np.array([first_of_path.setdefault(path, index) for index, path in enumerate(paths)], np.int32))
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def split_by_group(labels: np.ndarray, groups: np.ndarray, seed: int) -> Split | None:
    """Split samples 80 / 10 / 10 into training, validation and test, by whole groups, each class in proportion.

    Of few and unequal groups, several ways to divide them are tried until one is near these parts in each class, or the
    nearest is taken. Returns None if the groups are too few or too large to have every class in every split, and enough
    for training.
    """
    if any(len(np.unique(groups[labels == label])) < FOLDS for label in np.unique(labels)):
        return None
    best, least = None, np.inf
    for attempt in range(ATTEMPTS):
        folds = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=seed + attempt * ATTEMPT_SEEDS)
        tenths = [held_out for _, held_out in folds.split(labels, labels, groups)]
        for first in range(FOLDS if len(labels) < MANY else 1):
            turned = tenths[first:] + tenths[:first]
            splits = [np.sort(np.concatenate(turned[2:])), np.sort(turned[1]), np.sort(turned[0])]
            deviation = _deviation(labels, splits)
            if deviation < least:
                best, least = Split(*splits), deviation
            if least <= MAX_DEVIATION:
                return best
        if len(labels) >= MANY:
            break
    return best


def _deviation(labels: np.ndarray, splits: Sequence[np.ndarray]) -> float:
    """Return how far the parts of any class in the splits are from 80 / 10 / 10; infinity if the splits are of no use."""
    parts = np.array([len(split) / len(labels) for split in splits])
    by_class = np.array([[np.mean(np.isin(np.flatnonzero(labels == label), split)) for split in splits] for label in set(labels)])
    if parts[0] < MIN_TRAINING or min(parts[1:]) < MIN_HELD_OUT or by_class.min() == 0 or by_class[:, 0].min() < MIN_OF_CLASS:
        return math.inf
    return float(np.abs(by_class - PARTS).max())


def split_crops(
    features: np.ndarray, crops: Sequence[Crop], classes: Sequence[str], seed: int
) -> tuple[Split, np.ndarray, float]:
    """Split crops by groups of near-duplicates; returns the split, the groups (n,) and the threshold that made them.

    `features` is (n, d), as for group_near_duplicates. The lowest of DUPLICATE_THRESHOLDS that leaves enough groups is
    used. Crops of a data set with splits stay in theirs, whatever they look like; where such a data set has no validation
    or no test split, this is taken from the crops that it trains on. Raises InputError if even the photos are too few.
    """
    labels, paths = class_indices(crops, classes), [crop.path for crop in crops]
    given = np.array([crop.split for crop in crops], "U16")
    lacking = [name for name in ("validation", "test") if name not in given]
    free = given == ""
    pool = np.flatnonzero(free | ((given == "train") & bool(lacking)))
    if not len(pool):
        return _as_given(given), group_near_duplicates(features, paths), DUPLICATE_THRESHOLDS[0]
    in_pool = np.unique(labels[pool])
    for threshold in DUPLICATE_THRESHOLDS:
        groups = group_near_duplicates(features, paths, threshold)
        split = split_by_group(labels[pool], groups[pool], seed) if len(in_pool) == len(classes) or not free.all() else None
        if split is not None:
            for name, indices in asdict(split).items():
                chosen = pool[indices]
                given[chosen[free[chosen] | (name in lacking)]] = name
            given[given == ""] = "train"
            return _as_given(given), groups, threshold
    counts = [len(np.unique(groups[pool][labels[pool] == index])) for index in range(len(classes))]
    found = ", ".join(f"{name} {count}" for name, count in zip(classes, counts, strict=True))
    found += "; near-duplicates count once"
    raise InputError(f"dataset: too few photos that differ ({found}); give {FOLDS} or more, better hundreds, of each class")


def _as_given(names: np.ndarray) -> Split:
    return Split(*(np.flatnonzero(names == name) for name in ("train", "validation", "test")))


def shared_groups(split: Split, groups: np.ndarray) -> int:
    """Return how many crops of the test split have a near-duplicate that is learnt from, or that the epoch is chosen by."""
    seen = np.concatenate([groups[split.train], groups[split.validation]])
    return int(np.isin(groups[split.test], seen).sum())
