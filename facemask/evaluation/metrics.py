"""Measure a detector: faces found, labels right, probabilities calibrated."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from os import devnull

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import f1_score

from facemask.boxes import clip_boxes, iou_matrix
from facemask.detector import MaskDetector
from facemask.errors import InputError
from facemask.io.images import MAX_PIXELS, read_image
from facemask.labels import WITH_MASK, WITHOUT_MASK
from facemask.training.dataset import AnnotatedPhoto
from facemask.types import Box, Detection, Face

IOU_THRESHOLD = 0.5  # intersection over union from which a detection is a face, as in Pascal VOC
IGNORED_PART = 0.6  # of a detection's area, in an ignored box: from this part on the detection is ignored
RECALLS = np.linspace(0, 1, 1001)  # recalls at which precision is averaged: fine enough to equal VOC's area under the curve
FACE = "face"  # the class of all faces, whatever their labels
BINS = 15  # of probability, for calibration; Guo et al., "On Calibration of Modern Neural Networks" (2017)


@dataclass(frozen=True)
class EvaluatedPhoto:
    """An annotated photo and the output of a detector."""

    truth: AnnotatedPhoto
    probabilities: np.ndarray  # (n, classes), by the classifier on the n true boxes
    detections: list[Detection]  # by the detector on the photo, most confident first
    detect_seconds: float  # from the file to these detections, reading included
    classify_seconds: float  # to classify the true boxes

    @classmethod
    def of_faces(cls, truth: AnnotatedPhoto, faces: Sequence[Face]) -> "EvaluatedPhoto":
        """Return the output of a face detector alone: its faces have the label `FACE`, and times are 0."""
        detections = [Detection(face.box, face.confidence, FACE, 1.0, {}) for face in faces]
        return cls(truth, np.empty((len(truth.labels), 0)), detections, 0.0, 0.0)


@dataclass(frozen=True)
class PrecisionRecall:
    """Average precision (AP) of the detections of a class, and their precision at each of RECALLS (0: not reached)."""

    average_precision: float | None  # None if there is no true face
    precision: np.ndarray  # (1001,)


@dataclass(frozen=True)
class Match:
    """Which detection is which face; lists of one entry per photo, of indices of its detections."""

    of_faces: list[list[int | None]]  # for each true face the index of its detection, None if it was not found
    false_positives: list[list[int]]
    ignored: list[list[int]]  # on faces to be ignored: neither right nor wrong


def evaluate_photo(
    detector: MaskDetector, photo: AnnotatedPhoto, confidence: float, max_pixels: int = MAX_PIXELS
) -> EvaluatedPhoto:
    """Run the detector on a photo, and its classifier alone on the true boxes.

    `confidence` is the minimum of a detection: low, or the precision-recall curves are cut off. Raises InputError if the
    photo cannot be read, or a true box is empty or outside it.
    """
    start = time.perf_counter()
    result = detector.detect_file(photo.path, confidence, max_pixels=max_pixels)
    detect_seconds = time.perf_counter() - start
    if not len(photo.boxes):
        return EvaluatedPhoto(photo, np.empty((0, len(detector.classifier.info.labels))), result.detections, detect_seconds, 0.0)
    if len(clip_boxes(photo.boxes, result.width, result.height)[1]) < len(photo.boxes):
        raise InputError(f"{photo.path}: an annotated box is empty or outside the photo; fix the annotation")
    image = read_image(photo.path, max_pixels)
    start = time.perf_counter()
    probabilities = detector.classifier.classify(image, photo.boxes)
    return EvaluatedPhoto(photo, probabilities, result.detections, detect_seconds, time.perf_counter() - start)


def is_ignored(box: Box, truth: AnnotatedPhoto) -> bool:
    """Return whether a detection lies on a face to be ignored, and on no annotated face."""
    if not len(truth.ignored) or (iou_matrix([box], truth.boxes) >= IOU_THRESHOLD).any():
        return False
    x1, y1, x2, y2 = np.array(box, float)
    sides = np.minimum((x2, y2), truth.ignored[:, 2:]) - np.maximum((x1, y1), truth.ignored[:, :2])
    inside = np.clip(sides, 0, None).prod(axis=1) / ((x2 - x1) * (y2 - y1))
    return bool((iou_matrix([box], truth.ignored) >= IOU_THRESHOLD).any() or (inside >= IGNORED_PART).any())


def precision_recall(
    photos: Sequence[EvaluatedPhoto],
    classes: Sequence[str],
    to_class: Callable[[str], str],
    iou_threshold: float = IOU_THRESHOLD,
) -> dict[str, PrecisionRecall]:
    """Return the precision-recall curve of each class, VOC's way; `to_class` maps labels to `classes`.

    Detections are ranked by confidence x probability; with only one class by confidence.
    """
    faces_alone = len(classes) == 1
    evaluation = _coco_evaluation(
        photos,
        classes,
        to_class,
        lambda detection: detection.confidence * (1 if faces_alone else detection.probability),
        iou_threshold,
    )
    precision = evaluation.eval["precision"][0, :, :, 0, 0]  # (recalls, classes); -1 for a class without true faces
    return {
        name: PrecisionRecall(float(column.mean()) if column[0] >= 0 else None, np.maximum(column, 0))
        for name, column in zip(classes, precision.T, strict=True)
    }


def match_faces(photos: Sequence[EvaluatedPhoto], confidence: float, iou_threshold: float = IOU_THRESHOLD) -> Match:
    """Match true faces and the detections of at least this confidence, most confident first, whatever their labels."""
    evaluation = _coco_evaluation(photos, [FACE], lambda label: FACE, lambda detection: detection.confidence, iou_threshold)
    of_faces: list[list[int | None]] = [[None] * len(photo.truth.labels) for photo in photos]
    false_positives: list[list[int]] = [[] for _ in photos]
    for result in filter(None, evaluation.evalImgs):
        photo = result["image_id"]
        for detection_id, truth_id in zip(result["dtIds"], result["dtMatches"][0].astype(int), strict=True):
            detection, truth = evaluation.cocoDt.anns[detection_id], evaluation.cocoGt.anns.get(truth_id)
            if detection["score"] < confidence:
                continue
            if truth is None:
                false_positives[photo].append(detection["index"])
            else:
                of_faces[photo][truth["index"]] = detection["index"]
    ignored = [
        [i for i, one in enumerate(photo.detections) if one.confidence >= confidence and is_ignored(one.box, photo.truth)]
        for photo in photos
    ]
    return Match(of_faces, false_positives, ignored)


def _coco_evaluation(
    photos: Sequence[EvaluatedPhoto],
    classes: Sequence[str],
    to_class: Callable[[str], str],
    score: Callable[[Detection], float],
    iou_threshold: float,
) -> COCOeval:
    """Run pycocotools on the photos; each annotation keeps its `index` within its photo."""
    category_ids = {name: number for number, name in enumerate(classes, 1)}

    def annotations(indexed: Iterator[tuple], first_id: int, photo: int) -> list[dict]:
        return [
            {
                "id": first_id + number, "index": index, "image_id": photo, "category_id": category_ids[to_class(label)],
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, **extra,
            }
            for number, (index, label, (x1, y1, x2, y2), extra) in enumerate(indexed)
        ]  # fmt: skip

    truths: list[dict] = []
    detections: list[dict] = []
    for number, photo in enumerate(photos):
        boxes = zip(photo.truth.labels, photo.truth.boxes.tolist(), strict=True)
        truths += annotations(((index, label, box, {}) for index, (label, box) in enumerate(boxes)), 1 + len(truths), number)
        counted = (
            (index, detection.label, detection.box, {"score": score(detection)})
            for index, detection in enumerate(photo.detections)
            if not is_ignored(detection.box, photo.truth)
        )
        detections += annotations(counted, 1 + len(detections), number)
    truth, results = COCO(), COCO()
    categories = [{"id": number, "name": name} for name, number in category_ids.items()]
    images = [{"id": number} for number in range(len(photos))]
    with open(devnull, "w") as nowhere, redirect_stdout(nowhere):  # pycocotools prints its progress
        for coco, content in ((truth, truths), (results, detections)):
            coco.dataset = {"images": images, "categories": categories, "annotations": content}
            coco.createIndex()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.iouThrs = np.array([iou_threshold])
        evaluation.params.recThrs = RECALLS
        evaluation.params.maxDets = [10**6]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e12]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def two_classes(label: str) -> str:
    """Map a label to mask or no mask: a mask worn wrong protects nobody, and counts as no mask."""
    return WITH_MASK if label == WITH_MASK else WITHOUT_MASK


def label_metrics(true: np.ndarray, predicted: np.ndarray) -> dict:
    """Return how right predicted labels (n,) str are: shares 0..1, None if there are no faces to measure it on.

    `balanced_2_classes` is the mean of the shares of right labels among the faces with and without a mask.
    """
    if not len(true):
        return {"faces": 0, "right": None, "balanced_2_classes": None, "macro_f1": None}
    worn, worn_predicted = true == WITH_MASK, predicted == WITH_MASK
    has_both = worn.any() and not worn.all()
    return {
        "faces": len(true),
        "right": float(np.mean(true == predicted)),
        "balanced_2_classes": float(np.mean(worn_predicted[worn]) + np.mean(~worn_predicted[~worn])) / 2 if has_both else None,
        "macro_f1": float(f1_score(true, predicted, average="macro", labels=np.unique(true), zero_division=0)),
    }


def calibration(right: np.ndarray, probability: np.ndarray) -> dict:
    """Return the expected calibration error of probabilities (n,) that something is `right`, (n,) bool, and its bins.

    Both are None and empty without any.
    """
    number = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins = []
    for index in range(BINS):
        inside = number == index
        if inside.any():
            bins.append(
                {
                    "count": int(inside.sum()),
                    "probability": float(probability[inside].mean()),
                    "right": float(right[inside].mean()),
                }
            )
    error = sum(part["count"] * abs(part["probability"] - part["right"]) for part in bins) / len(right) if len(right) else None
    return {"expected_error": error, "bins": bins}
