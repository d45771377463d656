"""Plots of how training went and how good a detector is."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws without a display
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

from facemask.boxes import crop_face
from facemask.errors import InputError
from facemask.evaluation.report import Mistake
from facemask.io.images import MAX_PIXELS, read_image
from facemask.io.outputs import atomic_path
from facemask.labels import display_name

plt.rcParams["text.parse_math"] = False  # labels may hold dollars


def plot_training(
    path: str | Path, head: dict[str, list], fine_tuning: dict[str, list], confusion: np.ndarray, classes: Sequence[str]
) -> None:
    """Write loss and accuracy by epoch of both phases, and the confusion matrix on the test split.

    `head` and `fine_tuning` are Keras histories; `confusion` is (classes, classes), one row per true class.
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
        axes.legend(loc="upper right" if metric == "loss" else "lower right")
    ConfusionMatrixDisplay(confusion, display_labels=[display_name(name) for name in classes]).plot(
        ax=matrix_axes, cmap="Blues", colorbar=False
    )
    matrix_axes.set(title="faces of the test split", xlabel="predicted", ylabel="true")
    save_figure(figure, path)


def plot_precision_recall(path: str | Path, metrics: Mapping) -> None:
    """Write the precision-recall curves of `annotated_metrics`, one panel per set of classes."""
    groups = metrics["precision_recall"]
    figure, panels = plt.subplots(1, len(groups), figsize=(5 * len(groups), 4.5), constrained_layout=True)
    for axes, (group, curves) in zip(panels, groups.items(), strict=True):
        for name, precision in curves.items():
            average = metrics["average_precision"][group][name]
            if average is None:  # no true face
                continue
            axes.plot(np.linspace(0, 1, len(precision)), precision, label=f"{display_name(name)}, AP {average:.3f}")
        if group == "faces":
            axes.plot(
                metrics["face_recall"],
                metrics["face_precision"],
                "o",
                color="black",
                label=f"at confidence {metrics['confidence']:g}",
            )
        axes.set(title=group.replace("_", " "), xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")
    save_figure(figure, path)


def plot_reliability(path: str | Path, calibration: Mapping) -> None:
    """Write how often labels are right at each probability (`facemask.evaluation.metrics.calibration`)."""
    bins = calibration["bins"]
    probability, right, faces = ([part[key] for part in bins] for key in ("probability", "right", "count"))
    figure, (axes, counts) = plt.subplots(2, 1, figsize=(5, 6), sharex=True, height_ratios=(3, 1), constrained_layout=True)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    axes.plot(probability, right, "o-", label=f"labels, expected error {calibration['expected_error']:.3f}")
    axes.set(ylabel="share of labels right", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper left")
    counts.bar(probability, faces, width=0.04)
    counts.set(xlabel="probability", ylabel="faces", yscale="log")
    for panel in (axes, counts):
        panel.grid(alpha=0.3)
    save_figure(figure, path)


def plot_mistakes(
    path: str | Path, mistakes: Mapping[str, Sequence[Mistake]], columns: int = 12, max_pixels: int = MAX_PIXELS
) -> None:
    """Write the crops of mistakes, one block of rows per kind, each with a margin of half the face's longer side.

    The place of a photo that can no longer be read stays empty.
    """
    kinds = {kind: examples for kind, examples in mistakes.items() if examples}
    rows = {kind: -(-len(examples) // columns) for kind, examples in kinds.items()}
    figure = plt.figure(figsize=(1.25 * columns, 1.7 * max(sum(rows.values()), 1)), constrained_layout=True)
    blocks = figure.subfigures(max(len(kinds), 1), 1, height_ratios=list(rows.values()) or [1], squeeze=False)
    for (block,), (kind, examples) in zip(blocks, kinds.items(), strict=False):
        block.suptitle(kind, fontweight="bold")
        panels = block.subplots(rows[kind], columns, squeeze=False).ravel()
        for axes in panels:
            axes.axis("off")
        for axes, mistake in zip(panels, examples, strict=False):  # the last row may not be full
            with suppress(InputError):
                crop = crop_face(read_image(mistake.path, max_pixels), mistake.box, 128, margin=0.5)
                axes.imshow(crop[:, :, ::-1])
                axes.set_title(_caption(mistake), fontsize=6)
    save_figure(figure, path)


def _caption(mistake: Mistake) -> str:
    height = f"{mistake.box[3] - mistake.box[1]:.0f} px"
    if mistake.true is None:
        return f"face {mistake.probability:.0%}, {height}"
    if mistake.predicted is None:
        return f"{display_name(mistake.true)}, {height}"
    return f"{display_name(mistake.true)}, {height}\npredicted: {display_name(mistake.predicted)}\n{mistake.probability:.0%}"


def save_figure(figure: plt.Figure, path: str | Path) -> None:
    """Write a figure in the format of the suffix, atomically, and close it."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format=Path(path).suffix[1:].lower())
    plt.close(figure)
