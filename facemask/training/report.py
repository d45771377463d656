"""What a training prints: how the crops are split, and how the model does on the test split."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import classification_report, confusion_matrix

from facemask.models.keras_network import Network
from facemask.models.model_file import ModelFile
from facemask.models.model_info import ModelInfo
from facemask.training.batches import FaceBatches
from facemask.training.crops import Crop, class_indices
from facemask.training.split import Split

FEW_FACES = 30  # of a class: with fewer, one error changes its accuracy by more than three points

logger = logging.getLogger(__name__)


def one_crop_per_face(crops: Sequence[Crop], indices: np.ndarray) -> np.ndarray:
    """Return, of the crops with these indices, one per face: the last, which is the one the face detector cut out."""
    last = {crops[index].face_id: index for index in indices.tolist()}
    return np.array(sorted(last.values()), int)


def faces_to_test(crops: Sequence[Crop], split: Split) -> list[Crop]:
    """Return the crops of the test split, one per face."""
    return [crops[index] for index in one_crop_per_face(crops, split.test)]


def kept_classes(weights: str, classes: Sequence[str], keep: bool) -> list[str]:
    """Return the classes of the new model: those of the faces and, with `keep`, those that the model to start from knows more.

    A start that does not know all classes of the faces is of another task: its classes are not kept. Reports what is kept
    or given up. Raises InputError if the model cannot be read.
    """
    known = ModelInfo.of_keras(ModelFile.read(weights)).classes if weights.endswith(".keras") else ()
    more = [name for name in known if name not in classes]
    if not more:
        return list(classes)
    names = ", ".join(more)
    if keep and set(classes) <= set(known):
        logger.info("no face of %s in the data sets: kept as the starting model knows it; --no-keep-classes drops it", names)
        return sorted([*classes, *more])
    logger.warning("no face of %s in the data sets: the new model does not know it", names)
    return list(classes)


def knows_classes(weights: str, classes: Sequence[str]) -> bool:
    """Return whether the model to start from has all these classes, so that its accuracy before the training says something."""
    return weights.endswith(".keras") and set(classes) <= set(ModelInfo.of_keras(ModelFile.read(weights)).classes)


def predict_classes(network: Network, crops: Sequence[Crop], batch_size: int) -> np.ndarray:
    """Return the class indices (n,) that the network gives n crops."""
    return network.model.predict(FaceBatches(crops, network.info, batch_size), verbose=0).argmax(axis=1)


def split_report(crops: Sequence[Crop], split: Split, groups: np.ndarray, classes: Sequence[str]) -> str:
    """Return a table of how many crops of each class are in each split."""
    labels = class_indices(crops, classes)
    columns = {
        "train": labels[split.train],
        "validation": labels[split.validation],
        "test": labels[one_crop_per_face(crops, split.test)],
    }
    lines = [" " * 26 + "".join(f"{name:>12s}" for name in columns)]
    for index, name in enumerate(classes):
        lines.append(f"  {name:24s}" + "".join(f"{np.sum(column == index):12d}" for column in columns.values()))
    lines += [
        "  (train, validation: crops; a face of a class folder may have two, whole photo and cut out; test: one per face)",
        f"  {len(np.unique(groups))} groups of near-duplicates; {_in_two_splits(split, groups)}",
    ]
    return "\n".join(lines)


def _in_two_splits(split: Split, groups: np.ndarray) -> str:
    parts = [set(groups[indices].tolist()) for indices in (split.train, split.validation, split.test)]
    shared = (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])
    return f"{len(shared)} of them in two splits, as the data set has them" if shared else "no group is in two splits"


def accuracy_with_interval(confusion: np.ndarray, classes: Sequence[str]) -> str:
    """Return the accuracy as text, of a confusion matrix, one row per true class; with its 95 % interval for few faces.

    The interval is Wilson's. Warns of the classes with fewer than FEW_FACES faces.
    """
    right, count = int(confusion.trace()), int(confusion.sum())
    text = f"Accuracy {right / count:.4f} on {count} faces"
    numbers = zip(classes, confusion.sum(axis=1).tolist(), strict=True)
    few = [f"{name} {number}" for name, number in numbers if 0 < number < FEW_FACES]
    if few:
        interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
        text += f" (95 % interval: {interval.low:.4f} to {interval.high:.4f})"
        logger.warning("few faces in the test split (%s): its accuracy says little; give more photos", ", ".join(few))
    return text


def accuracy_report(
    crops: Sequence[Crop],
    predicted: np.ndarray,
    classes: Sequence[str],
    folders: Sequence[Path],
    before: np.ndarray | None = None,
) -> tuple[str, np.ndarray]:
    """Return a text on the predicted class indices (n,) of n test crops, and the confusion matrix, one row per true class.

    With several `folders`, the text has the accuracy in each of them, and beside it, with `before`, the class indices (n,)
    that the model gave before it was trained on, its accuracy then: whether it forgot what it knew.
    """
    true = class_indices(crops, classes)
    numbers = range(len(classes))
    confusion = confusion_matrix(true, predicted, labels=numbers)
    report = classification_report(true, predicted, labels=numbers, target_names=classes, digits=4, zero_division=0)
    lines = [report, "Confusion matrix (one row per true class):"]
    for name, row in zip(classes, confusion, strict=True):
        lines.append(f"  {name:24s}" + "".join(f"{count:7d}" for count in row))
    for folder in folders if len(folders) > 1 or before is not None else []:
        inside = np.array([crop.path.is_relative_to(folder) for crop in crops], bool)
        if inside.any():
            right = (predicted == true)[inside].mean()
            then = "" if before is None else f", {(before == true)[inside].mean():.4f} before this training"
            lines.append(f"  {folder}: accuracy {right:.4f} on {inside.sum()} faces{then}")
    return "\n".join(lines), confusion
