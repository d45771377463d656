"""The report of an evaluation: all figures, the worst mistakes, a page of Markdown."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from facemask.evaluation.metrics import FACE, EvaluatedPhoto, calibration, label_figures, match_faces, rank, two_classes
from facemask.labels import WITH_MASK, WITHOUT_MASK, display_name

HEIGHTS = (0, 16, 24, 32, 64, np.inf)  # px, limits of the groups of faces
SMALL = (0, 24)  # px, the first groups together


def report(photos: Sequence[EvaluatedPhoto], model_classes: Sequence[str], confidence: float) -> dict:
    """Return all figures, ready for JSON; `confidence` is the one from which a face counts as found."""
    truths = [photo.truth for photo in photos]
    true = np.array([label for truth in truths for label in truth.labels], dtype=object)
    heights = np.concatenate([truth.boxes[:, 3] - truth.boxes[:, 1] for truth in truths])
    probabilities = np.concatenate([photo.probabilities for photo in photos])
    predicted = np.array(model_classes, dtype=object)[probabilities.argmax(axis=1)]
    classes = sorted({*true, *model_classes})

    match = match_faces(photos, confidence)
    found = np.array([index is not None for indices in match.of_truth for index in indices])
    labels_of_found = np.array(
        [
            photo.detections[i].label
            for photo, indices in zip(photos, match.of_truth, strict=True)
            for i in indices
            if i is not None
        ],
        dtype=object,
    )
    found_label = np.full(len(true), "", dtype=object)
    found_label[found] = labels_of_found
    alarms = sum(map(len, match.false_alarms))
    rankings = {
        "faces": rank(photos, [FACE], lambda label: FACE),
        **({"2_classes": rank(photos, [WITH_MASK, WITHOUT_MASK], two_classes)} if WITH_MASK in classes else {}),
        f"{len(classes)}_classes": rank(photos, classes, str),
    }
    average = {
        name: float(np.mean([one.average_precision for one in group.values() if one.average_precision is not None]))
        for name, group in rankings.items()
    }
    return {
        "photos": len(photos),
        "faces": len(true),
        "confidence": confidence,
        "face_average_precision": average["faces"],
        "face_precision": float(found.sum() / max(found.sum() + alarms, 1)),
        "face_recall": float(found.mean()),
        "mean_average_precision": {name: value for name, value in average.items() if name != "faces"},
        "average_precision": {
            group: {name: ranking.average_precision for name, ranking in rankings[group].items()} for group in rankings
        },
        "labels_on_true_boxes": label_figures(true, predicted),
        "labels_on_found_faces": label_figures(true[found], found_label[found]),
        "by_height": [
            {
                "from": low,
                "to": None if high == np.inf else high,
                "faces": int(inside.sum()),
                "found": int((inside & found).sum()),
                "labels_on_true_boxes": label_figures(true[inside], predicted[inside]),
                "labels_on_found_faces": label_figures(true[inside & found], found_label[inside & found]),
            }
            for low, high, inside in _by_height(heights)
        ],
        "confusion": {"classes": classes, "rows_are_true": confusion_matrix(true, predicted, labels=classes).tolist()},
        "calibration": calibration(true, predicted, probabilities.max(axis=1)),
        "milliseconds_a_photo_median": float(np.median([photo.detect_seconds for photo in photos]) * 1000),
        "milliseconds_a_face": float(sum(photo.classify_seconds for photo in photos) / max(len(true), 1) * 1000),
        "precision_recall": {
            group: {
                name: [round(value, 4) for value in ranking.precision[::10].tolist()] for name, ranking in rankings[group].items()
            }
            for group in rankings
        },
    }


@dataclass(frozen=True)
class Mistake:
    """A box of a photo to look at, and what is wrong with it."""

    path: Path
    box: tuple[float, float, float, float]
    true: str | None  # its label, None where there is no face
    predicted: str | None  # likewise, None where no face was found
    probability: float  # of the predicted label, or the confidence that there is a face


def worst_mistakes(
    photos: Sequence[EvaluatedPhoto], model_classes: Sequence[str], confidence: float, count: int
) -> dict[str, list[Mistake]]:
    """Return, worst first, up to `count` each of: true boxes labelled wrong, false alarms, and faces not found."""
    match = match_faces(photos, confidence)
    wrong, alarms, missed = [], [], []
    for photo, found, unmatched in zip(photos, match.of_truth, match.false_alarms, strict=True):
        truth = photo.truth
        for label, box, row, index in zip(truth.labels, truth.boxes.tolist(), photo.probabilities, found, strict=True):
            predicted = model_classes[row.argmax()]
            if predicted != label:
                wrong.append(Mistake(truth.path, tuple(box), label, predicted, float(row.max())))
            if index is None:
                missed.append(Mistake(truth.path, tuple(box), label, None, 0.0))
        for detection in (photo.detections[index] for index in unmatched):
            alarms.append(Mistake(truth.path, detection.box, None, detection.label, detection.confidence))
    wrong.sort(key=lambda mistake: -mistake.probability)
    alarms.sort(key=lambda mistake: -mistake.probability)
    missed.sort(key=lambda mistake: mistake.box[1] - mistake.box[3])  # the tallest should have been the easiest
    return {"labels wrong": wrong[:count], "false alarms": alarms[:count], "faces not found": missed[:count]}


def _by_height(heights: np.ndarray) -> Iterator[tuple[int, float, np.ndarray]]:
    for low, high in (*pairwise(HEIGHTS), SMALL):
        yield low, high, (heights >= low) & (heights < high)


def to_markdown(figures: dict, args: argparse.Namespace) -> str:
    """Return the figures of a report as a page of Markdown tables."""

    confidence = figures["confidence"]
    found = f"{figures['face_precision']:.3f} / {figures['face_recall']:.3f}"
    lines = [
        f"# {args.model.name} and {args.face.name} on {figures['photos']} photos, {figures['faces']} faces",
        "",
        "| | |",
        "|---|---|",
        f"| face average precision, overlap 0.5 | {figures['face_average_precision']:.3f} |",
        f"| face precision / recall at confidence {confidence:g} | {found} |",
        *(
            f"| mean average precision, {group.replace('_', ' ')} | {value:.3f} |"
            for group, value in figures["mean_average_precision"].items()
        ),
    ]
    for where in ("true boxes", "found faces"):
        labels = figures[f"labels_on_{where.replace(' ', '_')}"]
        lines += [
            f"| labels right on {where} | {percent(labels['right'])} |",
            f"| mask or none on {where}, balanced | {percent(labels['balanced_2_classes'])} |",
            f"| macro F1 on {where}, all classes | {number(labels['macro_f1'])} |",
        ]
    lines += [
        f"| expected calibration error | {figures['calibration']['expected_error']:.3f} |",
        f"| milliseconds a photo (median), reading included | {figures['milliseconds_a_photo_median']:.0f} |",
        f"| milliseconds a face, classifier alone | {figures['milliseconds_a_face']:.1f} |",
        "",
        f"By face height in pixels; found at confidence {confidence:g}; mask or none (a mask worn wrong counts as none), the",
        "mean over both:",
        "",
        "| height | faces | found | labels on true boxes | labels on found faces |",
        "|---|---|---|---|---|",
    ]
    for group in figures["by_height"]:
        height = f"{group['from']} to {group['to']}" if group["to"] else f"{group['from']} and more"
        recall = percent(group["found"] / group["faces"] if group["faces"] else None)
        labels = (percent(group[f"labels_on_{where}"]["balanced_2_classes"]) for where in ("true_boxes", "found_faces"))
        together = " (together)" if (group["from"], group["to"]) == SMALL else ""
        lines.append(f"| {height}{together} | {group['faces']} | {recall} | {' | '.join(labels)} |")
    classes = figures["confusion"]["classes"]
    lines += [
        "",
        "Confusion on the true boxes, a row a true class:",
        "",
        f"| | {' | '.join(map(display_name, classes))} |",
        "|---" * (1 + len(classes)) + "|",
    ]
    for name, row in zip(classes, figures["confusion"]["rows_are_true"], strict=True):
        lines.append(f"| {display_name(name)} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
