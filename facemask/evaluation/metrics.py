"""Measure a detector: faces found, labels right, probabilities calibrated."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import f1_score

from facemask.boxes import clip_boxes, iou_matrix
from facemask.detector import MaskDetector
from facemask.errors import InputError
from facemask.io.images import MAX_PIXELS, read_image
from facemask.labels import WITH_MASK, WITHOUT_MASK
from facemask.training.dataset import AnnotatedPhoto
from facemask.types import Detection, Face

IOU_THRESHOLD = 0.5  # intersection over union from which a detection is a face, as in Pascal VOC
IGNORED_PART = 0.6  # of a detection's area, in an ignored box: from this part on the detection is ignored
RECALLS = np.linspace(0, 1, 101)  # at which precision is returned, for plots
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
    precision: np.ndarray  # (101,), the maximum at this recall or a higher one


@dataclass(frozen=True)
class RankedDetections:
    """The detections of all photos, highest score first; arrays (k,)."""

    score: np.ndarray
    photo: np.ndarray  # index of the photo
    detection: np.ndarray  # index among the photo's detections
    face: np.ndarray  # index of the true face that it is, among the photo's; -1 for a false positive


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
    probabilities = detector.classifier.classify(image, photo.boxes.tolist())
    return EvaluatedPhoto(photo, probabilities, result.detections, detect_seconds, time.perf_counter() - start)


def find_ignored(boxes: Sequence, truth: AnnotatedPhoto) -> np.ndarray:
    """Return which boxes (k, 4) lie on a face to be ignored, and on no annotated face; (k,) bool."""
    boxes = np.array(boxes, float).reshape(-1, 4)
    if not len(truth.ignored):
        return np.zeros(len(boxes), bool)
    is_annotated = (iou_matrix(boxes, truth.boxes) >= IOU_THRESHOLD).any(axis=1)
    left_top = np.maximum(boxes[:, None, :2], truth.ignored[:, :2])
    right_bottom = np.minimum(boxes[:, None, 2:], truth.ignored[:, 2:])
    part = np.clip(right_bottom - left_top, 0, None).prod(axis=2) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    is_ignored = (iou_matrix(boxes, truth.ignored) >= IOU_THRESHOLD) | (part >= IGNORED_PART)
    return ~is_annotated & is_ignored.any(axis=1)


def rank_detections(
    photos: Sequence[EvaluatedPhoto],
    score: Callable[[Detection], float],
    iou_threshold: float = IOU_THRESHOLD,
    is_class: Callable[[str], bool] = lambda label: True,
) -> RankedDetections:
    """Match the detections and true faces whose labels are of a class, as Pascal VOC does; without the ignored ones.

    In the order of their scores, each detection is compared with the true face of its photo that it overlaps most: it is
    this face if their intersection over union reaches the threshold and no earlier detection is this face.
    """
    candidates = [
        (number, index, score(photo.detections[index]))
        for number, photo in enumerate(photos)
        for index in np.flatnonzero(~find_ignored([detection.box for detection in photo.detections], photo.truth)).tolist()
        if is_class(photo.detections[index].label)
    ]
    candidates.sort(key=lambda candidate: -candidate[2])
    is_free = [np.array([is_class(label) for label in photo.truth.labels], bool) for photo in photos]
    is_candidate = [free.copy() for free in is_free]
    faces = []
    for number, index, _ in candidates:
        overlaps = iou_matrix(np.array([photos[number].detections[index].box]), photos[number].truth.boxes)[0]
        overlaps = np.where(is_candidate[number], overlaps, -1)
        face = int(overlaps.argmax()) if len(overlaps) else -1
        if face >= 0 and overlaps[face] >= iou_threshold and is_free[number][face]:
            is_free[number][face] = False
        else:
            face = -1
        faces.append(face)
    number, index, scores = (np.array(column) for column in zip(*candidates, strict=True)) if candidates else ([], [], [])
    return RankedDetections(np.array(scores, float), np.array(number, int), np.array(index, int), np.array(faces, int))


def precision_recall(
    photos: Sequence[EvaluatedPhoto],
    classes: Sequence[str],
    to_class: Callable[[str], str],
    iou_threshold: float = IOU_THRESHOLD,
) -> dict[str, PrecisionRecall]:
    """Return the precision-recall curve of each class; `to_class` maps labels to `classes`.

    Detections are ranked by confidence x probability; with only one class by confidence. Average precision is Pascal
    VOC's area under the curve, whose precision is made to fall monotonically.
    """
    faces_alone = len(classes) == 1
    curves = {}
    for name in classes:

        def is_class(label: str, name: str = name) -> bool:
            return to_class(label) == name

        ranked = rank_detections(
            photos,
            lambda detection: detection.confidence * (1 if faces_alone else detection.probability),
            iou_threshold,
            is_class,
        )
        count = sum(to_class(label) == name for photo in photos for label in photo.truth.labels)
        curves[name] = _curve(ranked.face >= 0, count)
    return curves


def _curve(right: np.ndarray, count: int) -> PrecisionRecall:
    """Return the curve of detections, best first, that are `right` (k,) bool, where there are `count` true faces."""
    if not count:
        return PrecisionRecall(None, np.zeros(len(RECALLS)))
    found = np.cumsum(right)
    precision = found / np.arange(1, 1 + len(right))
    maximum = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
    at_recall = np.searchsorted(found / count, RECALLS - 1e-9)
    return PrecisionRecall(float(maximum[right].sum() / count), np.append(maximum, 0.0)[at_recall])


def match_faces(photos: Sequence[EvaluatedPhoto], confidence: float, iou_threshold: float = IOU_THRESHOLD) -> Match:
    """Match true faces and the detections of at least this confidence, most confident first, whatever their labels."""
    ranked = rank_detections(photos, lambda detection: detection.confidence, iou_threshold)
    of_faces: list[list[int | None]] = [[None] * len(photo.truth.labels) for photo in photos]
    false_positives: list[list[int]] = [[] for _ in photos]
    for score, photo, detection, face in zip(
        ranked.score, ranked.photo.tolist(), ranked.detection.tolist(), ranked.face.tolist(), strict=True
    ):
        if score < confidence:
            break
        if face < 0:
            false_positives[photo].append(detection)
        else:
            of_faces[photo][face] = detection
    ignored = []
    for photo in photos:
        indices = np.flatnonzero(find_ignored([detection.box for detection in photo.detections], photo.truth)).tolist()
        ignored.append([index for index in indices if photo.detections[index].confidence >= confidence])
    return Match(of_faces, false_positives, ignored)


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

    Without probabilities the error is None and there are no bins.
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
