"""The report of an evaluation: metrics of each set, the worst mistakes, Markdown tables."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from facemask.evaluation.metrics import (
    FACE,
    IOU_THRESHOLD,
    EvaluatedPhoto,
    Match,
    calibration,
    label_metrics,
    match_faces,
    precision_recall,
    two_classes,
)
from facemask.labels import WITH_MASK, WITHOUT_MASK, display_name
from facemask.types import Detection

HEIGHTS = (0, 16, 24, 32, 64, np.inf)  # px, limits of the groups of faces
SMALL = (0, 24)  # px, the first groups together
NO_FACE = "no face"  # in a photo of a class folder


def annotated_metrics(
    photos: Sequence[EvaluatedPhoto], model_classes: Sequence[str], confidence: float, iou_threshold: float = IOU_THRESHOLD
) -> dict:
    """Return all metrics of annotated photos, ready for JSON; a face counts as found from `confidence` on."""
    truths = [photo.truth for photo in photos]
    true = np.array([label for truth in truths for label in truth.labels], dtype=object)
    heights = np.concatenate([truth.boxes[:, 3] - truth.boxes[:, 1] for truth in truths])
    probabilities = np.concatenate([photo.probabilities for photo in photos])
    predicted = np.array(model_classes, dtype=object)[probabilities.argmax(axis=1)]
    classes = sorted({*true, *model_classes})

    match = match_faces(photos, confidence, iou_threshold)
    found, label_of_found = _found_labels(photos, match)
    any_match = match_faces(photos, 0.0, iou_threshold)
    found_at_any, label_at_any = _found_labels(photos, any_match)
    false_positives = sum(map(len, match.false_positives))
    curves = {
        "faces": precision_recall(photos, [FACE], lambda label: FACE, iou_threshold),
        **(
            {"2_classes": precision_recall(photos, [WITH_MASK, WITHOUT_MASK], two_classes, iou_threshold)}
            if WITH_MASK in classes
            else {}
        ),
        f"{len(classes)}_classes": precision_recall(photos, classes, str, iou_threshold),
    }
    average = {
        name: float(np.mean([one.average_precision for one in group.values() if one.average_precision is not None]))
        for name, group in curves.items()
    }
    return {
        "photos": len(photos),
        "faces": len(true),
        "confidence": confidence,
        "iou_threshold": iou_threshold,
        "face_average_precision": average["faces"],
        "face_precision": float(found.sum() / max(found.sum() + false_positives, 1)),
        "face_recall": float(found.mean()),
        "mean_average_precision": {name: value for name, value in average.items() if name != "faces"},
        "average_precision": {
            group: {name: curve.average_precision for name, curve in curves[group].items()} for group in curves
        },
        "labels_on_true_boxes": label_metrics(true, predicted),
        "labels_on_found_faces": label_metrics(true[found], label_of_found[found]),
        "labels_on_faces_found_at_any_confidence": label_metrics(true[found_at_any], label_at_any[found_at_any]),
        "by_height": [
            {
                "from": low,
                "to": None if high == np.inf else high,
                "faces": int(inside.sum()),
                "found": int((inside & found).sum()),
                "labels_on_true_boxes": label_metrics(true[inside], predicted[inside]),
                "labels_on_found_faces": label_metrics(true[inside & found], label_of_found[inside & found]),
            }
            for low, high, inside in _by_height(heights)
        ],
        "confusion": {"classes": classes, "rows_are_true": confusion_matrix(true, predicted, labels=classes).tolist()},
        "label_calibration": calibration(true == predicted, probabilities.max(axis=1)),
        "face_calibration": calibration(*_detection_outcomes(photos, any_match)),
        "median_milliseconds_per_photo": float(np.median([photo.detect_seconds for photo in photos]) * 1000),
        "milliseconds_per_face": float(sum(photo.classify_seconds for photo in photos) / max(len(true), 1) * 1000),
        "precision_recall": {
            group: {name: [round(value, 4) for value in curve.precision.tolist()] for name, curve in curves[group].items()}
            for group in curves
        },
    }


def _found_labels(photos: Sequence[EvaluatedPhoto], match: Match) -> tuple[np.ndarray, np.ndarray]:
    """Return for each true face whether it was found, (n,) bool, and the label of its detection, (n,) str ("": none)."""
    labels = [
        "" if index is None else photo.detections[index].label
        for photo, indices in zip(photos, match.of_faces, strict=True)
        for index in indices
    ]
    labels = np.array(labels, dtype=object)
    return labels != "", labels


def _detection_outcomes(photos: Sequence[EvaluatedPhoto], match: Match) -> tuple[np.ndarray, np.ndarray]:
    """Return for each detection whether it is a face, (n,) bool, and its confidence (n,); without the ignored ones."""
    right, confidence = [], []
    for photo, indices, ignored in zip(photos, match.of_faces, match.ignored, strict=True):
        for index, detection in enumerate(photo.detections):
            if index not in ignored:
                right.append(index in indices)
                confidence.append(detection.confidence)
    return np.array(right, bool), np.array(confidence, float)


def no_face_metrics(detections: Sequence[Sequence[Detection]], confidence: float) -> dict:
    """Return how often photos without faces have detections of at least this confidence; one list per photo."""
    count = sum(detection.confidence >= confidence for found in detections for detection in found)
    return {
        "photos": len(detections),
        "confidence": confidence,
        "false_positives": int(count),
        "false_positives_per_100_photos": 100 * count / max(len(detections), 1),
    }


def class_folder_metrics(labels: Sequence[str], detections: Sequence[Sequence[Detection]], confidence: float) -> dict:
    """Return which label the largest face of each photo gets, as shares by the photo's own label.

    `labels` are those of the folders. Faces below `confidence` do not count; a photo without a face counts as `NO_FACE`.
    """
    counts: dict[str, Counter[str]] = {}
    for label, found in zip(labels, detections, strict=True):
        faces = [detection for detection in found if detection.confidence >= confidence]
        largest = max(faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]), default=None)
        counts.setdefault(label, Counter())[largest.label if largest else NO_FACE] += 1
    return {
        "photos": len(labels),
        "confidence": confidence,
        "labels_of_largest_face": {
            label: {"photos": count.total(), "shares": {name: n / count.total() for name, n in count.most_common()}}
            for label, count in sorted(counts.items())
        },
    }


@dataclass(frozen=True)
class Mistake:
    """A wrong box of a photo."""

    path: Path
    box: tuple[float, float, float, float]
    true: str | None  # its label, None if there is no face
    predicted: str | None  # its predicted label, None if no face was found
    probability: float  # of the predicted label, or the confidence that there is a face


def worst_mistakes(
    photos: Sequence[EvaluatedPhoto],
    model_classes: Sequence[str],
    confidence: float,
    count: int,
    iou_threshold: float = IOU_THRESHOLD,
) -> dict[str, list[Mistake]]:
    """Return, worst first, up to `count` each of: true boxes with a wrong label, false positives, and false negatives."""
    match = match_faces(photos, confidence, iou_threshold)
    wrong, positives, negatives = [], [], []
    for photo, of_faces, unmatched in zip(photos, match.of_faces, match.false_positives, strict=True):
        truth = photo.truth
        for label, box, row, index in zip(truth.labels, truth.boxes.tolist(), photo.probabilities, of_faces, strict=True):
            predicted = model_classes[row.argmax()]
            if predicted != label:
                wrong.append(Mistake(truth.path, tuple(box), label, predicted, float(row.max())))
            if index is None:
                negatives.append(Mistake(truth.path, tuple(box), label, None, 0.0))
        for detection in (photo.detections[index] for index in unmatched):
            positives.append(Mistake(truth.path, detection.box, None, detection.label, detection.confidence))
    wrong.sort(key=lambda mistake: -mistake.probability)
    positives.sort(key=lambda mistake: -mistake.probability)
    negatives.sort(key=lambda mistake: mistake.box[1] - mistake.box[3])  # the tallest should have been the easiest
    return {"wrong labels": wrong[:count], "false positives": positives[:count], "false negatives": negatives[:count]}


def _by_height(heights: np.ndarray) -> Iterator[tuple[float, float, np.ndarray]]:
    for low, high in (*pairwise(HEIGHTS), SMALL):
        yield low, high, (heights >= low) & (heights < high)


SUMMARY_COLUMNS = (
    "set", "photos", "faces", "face AP (IoU)", "precision / recall", "mAP, 2 classes", "mAP, all classes", "labels balanced",
    "ECE of labels", "ECE of faces", "false positives per 100 photos", "label of the largest face",
)  # fmt: skip


def summary_table(metrics_by_set: Mapping[str, Mapping]) -> list[str]:
    """Return one Markdown table of all sets: a row per set, for class folders a row per class."""
    lines = [f"| {' | '.join(SUMMARY_COLUMNS)} |", "|---" * len(SUMMARY_COLUMNS) + "|"]
    for name, metrics in metrics_by_set.items():
        lines += [f"| {' | '.join(str(cells.get(column, '')) for column in SUMMARY_COLUMNS)} |" for cells in _rows(name, metrics)]
    return lines


def _rows(name: str, metrics: Mapping) -> list[dict[str, object]]:
    row = {"set": name, "photos": metrics["photos"]}
    if "labels_of_largest_face" in metrics:
        return [
            {
                "set": f"{name}: {display_name(label)}",
                "photos": group["photos"],
                "label of the largest face": ", ".join(
                    f"{name if name == NO_FACE else display_name(name)} {share:.1%}" for name, share in group["shares"].items()
                ),
            }
            for label, group in metrics["labels_of_largest_face"].items()
        ]
    if "false_positives_per_100_photos" in metrics:
        return [row | {"false positives per 100 photos": f"{metrics['false_positives_per_100_photos']:.1f}"}]
    mean = dict(metrics["mean_average_precision"])
    two = mean.pop("2_classes", None)
    return [
        row
        | {
            "faces": metrics["faces"],
            "face AP (IoU)": f"{metrics['face_average_precision']:.3f} ({metrics['iou_threshold']:g})",
            "precision / recall": f"{metrics['face_precision']:.3f} / {metrics['face_recall']:.3f}",
            "mAP, 2 classes": number(two),
            "mAP, all classes": number(next(iter(mean.values()), two)),
            "labels balanced": percent(metrics["labels_on_faces_found_at_any_confidence"]["balanced_2_classes"]),
            "ECE of labels": number(metrics["label_calibration"]["expected_error"]),
            "ECE of faces": number(metrics["face_calibration"]["expected_error"]),
        }
    ]


def summary_legend(confidence: float, min_confidence: float) -> list[str]:
    """Return what the columns of the summary table mean."""
    return [
        f"Precision, recall, false positives and the largest face: at confidence {confidence:g}. Labels balanced: mask or no",
        f"mask, the mean over both, on the faces found at confidence {min_confidence:g} (a mask worn wrong counts as no mask).",
        "ECE: expected calibration error, of labels on the true boxes, of faces on the detections from confidence",
        f"{min_confidence:g}.",
    ]


def set_report(name: str, metrics: Mapping) -> list[str]:
    """Return the metrics of an annotated set as Markdown tables."""
    confidence, iou = metrics["confidence"], metrics["iou_threshold"]
    found = f"{metrics['face_precision']:.3f} / {metrics['face_recall']:.3f}"
    lines = [
        f"## {name}: {metrics['photos']} photos, {metrics['faces']} faces",
        "",
        "| | |",
        "|---|---|",
        f"| face average precision, IoU {iou:g} | {metrics['face_average_precision']:.3f} |",
        f"| face precision / recall at confidence {confidence:g} | {found} |",
        *(
            f"| mean average precision, {group.replace('_', ' ')} | {value:.3f} |"
            for group, value in metrics["mean_average_precision"].items()
        ),
    ]
    for where in ("true boxes", "found faces"):
        labels = metrics[f"labels_on_{where.replace(' ', '_')}"]
        lines += [
            f"| labels right on {where} | {percent(labels['right'])} |",
            f"| mask or no mask on {where}, balanced | {percent(labels['balanced_2_classes'])} |",
            f"| macro F1 on {where}, all classes | {number(labels['macro_f1'])} |",
        ]
    lines += [
        f"| expected calibration error of labels | {number(metrics['label_calibration']['expected_error'])} |",
        f"| expected calibration error of faces | {number(metrics['face_calibration']['expected_error'])} |",
        f"| milliseconds per photo (median), reading included | {metrics['median_milliseconds_per_photo']:.0f} |",
        f"| milliseconds per face, classifier alone | {metrics['milliseconds_per_face']:.1f} |",
        "",
        f"By face height in pixels; found at confidence {confidence:g}; mask or no mask (a mask worn wrong counts as no mask),",
        "the mean over both:",
        "",
        "| height | faces | found | labels on true boxes | labels on found faces |",
        "|---|---|---|---|---|",
    ]
    for group in metrics["by_height"]:
        height = f"{group['from']} to {group['to']}" if group["to"] else f"{group['from']} and more"
        recall = percent(group["found"] / group["faces"] if group["faces"] else None)
        labels = (percent(group[f"labels_on_{where}"]["balanced_2_classes"]) for where in ("true_boxes", "found_faces"))
        together = " (together)" if (group["from"], group["to"]) == SMALL else ""
        lines.append(f"| {height}{together} | {group['faces']} | {recall} | {' | '.join(labels)} |")
    classes = metrics["confusion"]["classes"]
    lines += [
        "",
        "Confusion on the true boxes, one row per true class:",
        "",
        f"| | {' | '.join(map(display_name, classes))} |",
        "|---" * (1 + len(classes)) + "|",
    ]
    for label, row in zip(classes, metrics["confusion"]["rows_are_true"], strict=True):
        lines.append(f"| {display_name(label)} | {' | '.join(map(str, row))} |")
    return lines


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
