"""Run a detector on a set of photos, and measure it."""

import logging
from collections.abc import Sequence

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from facemask.detector import MaskDetector
from facemask.errors import InputError
from facemask.evaluation.metrics import EvaluatedPhoto, evaluate_photo
from facemask.evaluation.report import annotated_metrics, class_folder_metrics, no_face_metrics
from facemask.evaluation.sets import EvaluationSet, Kind

logger = logging.getLogger(__name__)


def run_detector(detector: MaskDetector, one: EvaluationSet, confidence: float, max_pixels: int) -> list[EvaluatedPhoto]:
    """Run the detector, from this confidence on, on the photos of a set; those it cannot use are skipped with a warning."""
    photos = []
    with logging_redirect_tqdm([logging.getLogger()]):
        for photo in tqdm(one.photos, desc=one.name, unit="image", disable=None):
            try:
                photos.append(evaluate_photo(detector, photo, confidence, max_pixels))
            except InputError as error:
                logger.warning("skipped: %s", error)
    skipped = len(one.photos) - len(photos)
    if skipped:
        logger.warning("%s: %d of %d photos were skipped", one.name, skipped, len(one.photos))
    return photos


def measure(one: EvaluationSet, photos: Sequence[EvaluatedPhoto], model_classes: Sequence[str], confidence: float) -> dict:
    """Return the metrics of a set at this confidence. Raises InputError if none of its photos could be used."""
    if not photos or (one.kind is Kind.ANNOTATED and not any(photo.truth.labels for photo in photos)):
        raise InputError(f"{one.name}: no photo could be read, or none has a face; see the warnings above")
    if one.kind is Kind.ANNOTATED:
        metrics = annotated_metrics(photos, model_classes, confidence, one.iou_threshold)
    elif one.kind is Kind.NO_FACES:
        metrics = no_face_metrics([photo.detections for photo in photos], confidence)
    else:
        labels = [one.labels[photo.truth.path] for photo in photos]
        metrics = class_folder_metrics(labels, [photo.detections for photo in photos], confidence)
    return {"kind": one.kind.value, **metrics}
