"""Measure a detector on annotated photos: faces found, labels right, probabilities true."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from os import devnull

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import balanced_accuracy_score, f1_score

from facemask.boxes import clip_boxes
from facemask.detector import MaskDetector
from facemask.errors import InputError
from facemask.io.images import MAX_PIXELS, read_image
from facemask.labels import WITH_MASK, WITHOUT_MASK
from facemask.training.dataset import AnnotatedPhoto
from facemask.types import Detection, Face

MIN_OVERLAP = 0.5  # intersection over union from which a face counts as found, as in Pascal VOC
RECALLS = np.linspace(0, 1, 1001)  # at which precision is averaged: fine enough to equal VOC's area under the curve
FACE = "face"  # the class of all faces, whatever their labels
BINS = 15  # of probability, for calibration; Guo et al., "On PlattScaling of Modern Neural Networks" (2017)


@dataclass(frozen=True)
class EvaluatedPhoto:
    """An annotated photo and what a detector makes of it."""

    truth: AnnotatedPhoto
    probabilities: np.ndarray  # (n, classes) of the n true boxes
    detections: list[Detection]  # found without help from the truth, surest first
    detect_seconds: float  # from the file to these detections, reading included
    classify_seconds: float  # to classify the true boxes

    @classmethod
    def of_faces(cls, truth: AnnotatedPhoto, faces: Sequence[Face]) -> "EvaluatedPhoto":
        """Make one of a face detector's finds alone: they get the label `FACE`, and times are 0."""
        detections = [Detection(face.box, face.confidence, FACE, 1.0, {}) for face in faces]
        return cls(truth, np.empty((len(truth.labels), 0)), detections, 0.0, 0.0)


@dataclass(frozen=True)
class Ranking:
    """Average precision (AP) of a set of detections, and precision at each of RECALLS; 0 where that recall is not had."""

    average_precision: float | None  # None where there is no true face to find
    precision: np.ndarray


@dataclass(frozen=True)
class Match:
    """Who found whom: for each true face the index (photo, detection) that found it, or None."""

    of_truth: list[list[int | None]]  # a list a photo, an entry a true face
    false_alarms: list[list[int]]  # a list a photo, of the indices of detections that found none


def evaluate_photo(
    detector: MaskDetector, photo: AnnotatedPhoto, confidence: float, max_pixels: int = MAX_PIXELS
) -> EvaluatedPhoto:
    """Run the detector on a photo, and its classifier alone on the true boxes.

    Raises InputError if the photo cannot be read, or a true box is empty or outside it.

    `confidence` is the least for a detection to be kept: low, or the precision-recall curves are cut off.
    """
    image = read_image(photo.path, max_pixels)
    if len(clip_boxes(photo.boxes, image.shape[1], image.shape[0])[1]) < len(photo.boxes):
        raise InputError(f"{photo.path}: an annotated box is empty or outside the photo; mend the annotation")
    start = time.perf_counter()
    detections = detector.detect_file(photo.path, confidence, max_pixels=max_pixels).detections
    detected = time.perf_counter()
    probabilities = detector.classifier.classify(image, photo.boxes)
    return EvaluatedPhoto(photo, probabilities, detections, detected - start, time.perf_counter() - detected)


def rank(photos: Sequence[EvaluatedPhoto], classes: Sequence[str], to_class: Callable[[str], str]) -> dict[str, Ranking]:
    """Rank the detections of each class by confidence x probability, VOC's way; `to_class` maps labels to `classes`.

    With one class the label does not count: they are ranked by confidence alone.
    """
    faces_alone = len(classes) == 1
    evaluation = _coco_evaluation(
        photos,
        classes,
        to_class,
        score=lambda detection: detection.confidence * (1 if faces_alone else detection.probability),
    )
    precision = evaluation.eval["precision"][0, :, :, 0, 0]  # (recalls, classes); -1 for a class without true faces
    return {
        name: Ranking(float(column.mean()) if column[0] >= 0 else None, np.maximum(column, 0))
        for name, column in zip(classes, precision.T, strict=True)
    }


def match_faces(photos: Sequence[EvaluatedPhoto], confidence: float) -> Match:
    """Pair true faces and detections of at least that confidence, surest first, whatever their labels."""
    evaluation = _coco_evaluation(photos, [FACE], lambda label: FACE, score=lambda detection: detection.confidence)
    of_truth = [[None] * len(photo.truth.labels) for photo in photos]
    false_alarms = [[] for _ in photos]
    for found in filter(None, evaluation.evalImgs):
        photo = found["image_id"]
        for detection_id, truth_id in zip(found["dtIds"], found["dtMatches"][0].astype(int), strict=True):
            detection, truth = evaluation.cocoDt.anns[detection_id], evaluation.cocoGt.anns.get(truth_id)
            if detection["score"] < confidence:
                continue
            if truth is None:
                false_alarms[photo].append(detection["index"])
            else:
                of_truth[photo][truth["index"]] = detection["index"]
    return Match(of_truth, false_alarms)


def _coco_evaluation(
    photos: Sequence[EvaluatedPhoto], classes: Sequence[str], to_class: Callable[[str], str], score: Callable[[Detection], float]
) -> COCOeval:
    """Run pycocotools on the photos; each annotation keeps its `index` within its photo."""
    category_ids = {name: number for number, name in enumerate(classes, 1)}

    def annotations(label_boxes: Iterator[tuple], first_id: int, photo: int) -> list[dict]:
        return [
            {
                "id": first_id + index, "index": index, "image_id": photo, "category_id": category_ids[to_class(label)],
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, **extra,
            }
            for index, (label, (x1, y1, x2, y2), extra) in enumerate(label_boxes)
        ]  # fmt: skip

    truths, detections = [], []
    for number, photo in enumerate(photos):
        boxes = zip(photo.truth.labels, photo.truth.boxes.tolist(), strict=True)
        truths += annotations(((label, box, {}) for label, box in boxes), 1 + len(truths), number)
        found = ((detection.label, detection.box, {"score": score(detection)}) for detection in photo.detections)
        detections += annotations(found, 1 + len(detections), number)
    truth, results = COCO(), COCO()
    categories = [{"id": number, "name": name} for name, number in category_ids.items()]
    images = [{"id": number} for number in range(len(photos))]
    with open(devnull, "w") as nowhere, redirect_stdout(nowhere):  # pycocotools tells its progress
        for coco, found in ((truth, truths), (results, detections)):
            coco.dataset = {"images": images, "categories": categories, "annotations": found}
            coco.createIndex()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.iouThrs = np.array([MIN_OVERLAP])
        evaluation.params.recThrs = RECALLS
        evaluation.params.maxDets = [10**6]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e12]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def two_classes(label: str) -> str:
    """Map a label to mask or none: one worn wrong protects nobody, and counts as none."""
    return WITH_MASK if label == WITH_MASK else WITHOUT_MASK


def label_figures(true: np.ndarray, predicted: np.ndarray) -> dict:
    """Return how right predicted labels (n,) str are: shares 0..1, None where there is no face to tell by."""
    if not len(true):
        return {"faces": 0, "right": None, "balanced_2_classes": None, "macro_f1": None}
    worn = true == WITH_MASK
    both = worn.any() and not worn.all()
    return {
        "faces": len(true),
        "right": float(np.mean(true == predicted)),
        "balanced_2_classes": float(balanced_accuracy_score(worn, predicted == WITH_MASK)) if both else None,
        "macro_f1": float(f1_score(true, predicted, average="macro", labels=np.unique(true), zero_division=0)),
    }


def calibration(true: np.ndarray, predicted: np.ndarray, probability: np.ndarray) -> dict:
    """Return the expected calibration error of the predicted labels' probabilities (n,), and the bins it is made of."""
    number = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins = []
    for index in range(BINS):
        inside = number == index
        if inside.any():
            right = float(np.mean(true[inside] == predicted[inside]))
            bins.append({"faces": int(inside.sum()), "probability": float(probability[inside].mean()), "right": right})
    error = sum(part["faces"] * abs(part["probability"] - part["right"]) for part in bins) / max(len(true), 1)
    return {"expected_error": float(error), "bins": bins}
