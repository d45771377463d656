"""Plots of how training went and what came of it."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws without a display
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

from facemask.drawing import readable
from facemask.files import atomic_path


def plot_training(
    path: str | Path, head: dict[str, list], fine_tuning: dict[str, list], confusion: np.ndarray, classes: Sequence[str]
) -> None:
    """Write loss and accuracy by epoch of both phases, and the confusion matrix on the test part, as a picture.

    `head` and `fine_tuning` are Keras histories; `confusion` is (classes, classes), a row a true class.
    """
    figure, (loss_axes, accuracy_axes, matrix_axes) = plt.subplots(1, 3, figsize=(15, 4.5), constrained_layout=True)
    epochs = np.arange(1, 1 + len(head["loss"]) + len(fine_tuning.get("loss", [])))
    for axes, metric in ((loss_axes, "loss"), (accuracy_axes, "accuracy")):
        for key, label in ((metric, "training"), (f"val_{metric}", "validation")):
            axes.plot(epochs, head[key] + fine_tuning.get(key, []), label=label)
        if fine_tuning:
            axes.axvline(len(head["loss"]) + 0.5, color="grey", linestyle=":", label="fine-tuning starts (augmented)")
        axes.set(xlabel="epoch", ylabel=metric)
        axes.grid(alpha=0.3)
        axes.legend()
    ConfusionMatrixDisplay(confusion, display_labels=[readable(name) for name in classes]).plot(
        ax=matrix_axes, cmap="Blues", colorbar=False
    )
    matrix_axes.set(title="faces of the test part", xlabel="predicted", ylabel="true")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)
