"""Part faces for training, validation and test, near-duplicates together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from facemask.errors import InputError

# Cosine similarity of backbone features from which two faces count as near-duplicates. Among the tutorial's photos every
# pair looked at above 0.90 was one, half of those at 0.87, none at 0.83. Photos of few people from one camera are all
# alike: the higher ones serve where the lower leave too few groups to part.
SAME_PHOTO = (0.86, 0.9, 0.94, 0.98)
PARTS = 10  # tenths of the data: 8 for training, 1 for validation, 1 for test


@dataclass(frozen=True)
class Split:
    """Indices of the samples in each part; no photo and none of its near-duplicates is in two parts."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def group_near_duplicates(features: np.ndarray, paths: Sequence[Path], threshold: float = SAME_PHOTO[0]) -> np.ndarray:
    """Give faces of the same photo, or of photos that look the same, the same group number; returns (n,) int.

    `features` is (n, d): what an ImageNet backbone makes of each face. Unlike perceptual hashes these also find
    turned, mirrored and recoloured copies.
    """
    count = len(features)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    rows, columns = [], []
    for start in range(0, count, 1024):  # a block of rows at a time bounds the memory
        similar = unit[start : start + 1024] @ unit.T >= threshold
        row, column = np.nonzero(similar)
        rows.append(row + start)
        columns.append(column)
    first_of_path = {}
    rows.append(np.arange(count))
    columns.append(np.array([first_of_path.setdefault(path, index) for index, path in enumerate(paths)], int))
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def split_by_group(labels: np.ndarray, groups: np.ndarray, seed: int) -> Split | None:
    """Part samples 80 / 10 / 10 into train, validation and test, by whole groups, classes in proportion.

    Returns None where the groups are too few or too large to have every class in every part.
    """
    if any(len(np.unique(groups[labels == label])) < PARTS for label in np.unique(labels)):
        return None
    folds = StratifiedGroupKFold(n_splits=PARTS, shuffle=True, random_state=seed)
    tenths = [part for _, part in folds.split(labels, labels, groups)]
    parts = [np.sort(np.concatenate(tenths[2:])), np.sort(tenths[1]), np.sort(tenths[0])]
    if any(len(np.unique(labels[part])) < len(np.unique(labels)) for part in parts):
        return None
    return Split(*parts)


def split_samples(
    features: np.ndarray, labels: np.ndarray, paths: Sequence[Path], classes: Sequence[str], seed: int
) -> tuple[Split, np.ndarray, float]:
    """Part samples by groups of near-duplicates; returns the split, the groups (n,) and the similarity that made them.

    The lowest of SAME_PHOTO that leaves enough groups is taken. Raises InputError where even the photos are too few.
    """
    for threshold in SAME_PHOTO:
        groups = group_near_duplicates(features, paths, threshold)
        split = split_by_group(labels, groups, seed)
        if split is not None:
            return split, groups, threshold
    counts = [len(np.unique(groups[labels == index])) for index in range(len(classes))]
    found = ", ".join(f"{name} {count}" for name, count in zip(classes, counts, strict=True))
    found += "; near-duplicates count once"
    raise InputError(f"dataset: too few photos that differ ({found}); give {PARTS} or more, better hundreds, of each class")
