"""Fit the last layer of a mask classifier anew, to faces as detection finds them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax
from tqdm import tqdm

from facemask.boxes import crop_face, iou_matrix
from facemask.errors import InputError
from facemask.io.images import MAX_PIXELS, read_image
from facemask.models.face_detectors import FaceDetector
from facemask.models.keras_network import Network, load_keras
from facemask.training.crops import MIN_FACE
from facemask.training.dataset import AnnotatedPhoto, Photo

CONFIDENCE = 0.05  # from which a detection is used: those that less confident runs show too
SAME_FACE = 0.5  # intersection over union from which a detection is an annotated face
MAX_FACES = 80  # detections of a photo that are used: no crowd outweighs the rest
BATCH = 256  # crops whose features are computed at once
# Weights in the loss, relative to the labels': of the probability of the background, and of the change of the kernel. Without
# the first, faces that are hard to see lose confidence; docs/experiments.md has the figures.
BACKGROUND_WEIGHT = 30.0
RIDGE = 0.003
STEPS = 100  # of L-BFGS at most

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FaceFeatures:
    """What the last layer is fitted to."""

    features: np.ndarray  # float32 (n, k): the last layer's inputs
    labels: np.ndarray  # int (n,): index of the class; -1 if it is unknown
    weights: np.ndarray  # float32 (n,): of the label in the loss; 0 if it is unknown


def find_faces(
    photos: Sequence[tuple[Photo, float]],
    unlabelled: Sequence[Path],
    face_detector: FaceDetector,
    network: Network,
    class_weights: Mapping[str, float],
    max_pixels: int = MAX_PIXELS,
) -> FaceFeatures:
    """Detect faces in photos, each with a weight, and in `unlabelled` photos; return their features and labels.

    In an annotated photo a face counts in its annotated box, and in that of detection. In a photo of a class folder the tallest
    detection has its class. `class_weights` multiply the weights of classes. Other detections have no label. Photos that
    cannot be read are left out, and counted in a warning. Raises InputError if no face has a label.
    """
    classes = network.info.classes
    features: list[np.ndarray] = []
    crops: list[np.ndarray] = []
    labels: list[int] = []
    weights: list[float] = []
    errors: list[InputError] = []
    outside = 0
    if unknown := {label for photo, _ in photos for label in photo.labels} - set(classes):
        raise InputError(f"dataset: classes that the model does not have ({', '.join(sorted(unknown))}); --rename them")

    def flush() -> None:
        if crops:
            features.append(network.features.predict(np.stack(crops).astype(np.float32), batch_size=64, verbose=0))
            crops.clear()

    listed: list[tuple[Path, Photo | None, float]] = [(photo.path, photo, weight) for photo, weight in photos]
    listed += [(path, None, 0.0) for path in unlabelled]
    for path, photo, weight in tqdm(listed, desc="finding faces", unit="image", disable=None):
        try:
            image = read_image(path, max_pixels)
        except InputError as error:
            errors.append(error)
            continue
        boxes = [face.box for face in face_detector.detect(image, CONFIDENCE)[:MAX_FACES]]
        for box, label in label_boxes(boxes, photo):
            try:
                crop = crop_face(image, box, network.info.input_size, network.info.margin)
            except ValueError:  # an annotated box outside of its photo
                outside += 1
                continue
            crops.append(crop[:, :, ::-1])
            labels.append(classes.index(label) if label else -1)
            weights.append(weight * class_weights.get(label, 1.0) if label else 0.0)
            if len(crops) == BATCH:
                flush()
    flush()
    if errors:
        logger.warning("%d of %d photos not used: cannot be read, as %s", len(errors), len(listed), errors[0])
    if outside:
        logger.warning("%d annotated boxes are empty or outside their photo: not used", outside)
    learnt = set(network.info.labels)
    if not any(weight for label, weight in zip(labels, weights, strict=True) if label >= 0 and classes[label] in learnt):
        raise InputError("--faces: no face with a label was found; give photos with annotated faces, or class folders")
    known = np.array(labels)
    counts = ", ".join(f"{np.count_nonzero(known == index)} {name}" for index, name in enumerate(classes))
    logger.info("%d faces with labels (%s), %d without", np.count_nonzero(known >= 0), counts, np.count_nonzero(known < 0))
    return FaceFeatures(np.concatenate(features), known, np.array(weights, np.float32))


def label_boxes(boxes: Sequence[tuple], photo: Photo | None) -> Iterable[tuple[Sequence[float], str]]:
    """Yield the boxes of detection, and of annotation, in a photo, with their labels; "" if that is unknown."""
    if photo is None:
        yield from ((box, "") for box in boxes)
    elif isinstance(photo, AnnotatedPhoto):
        overlaps = iou_matrix(boxes, photo.boxes)
        for box, row in zip(boxes, overlaps, strict=True):
            best = int(row.argmax()) if len(row) else -1
            yield box, photo.labels[best] if best >= 0 and row[best] >= SAME_FACE else ""
        for box, label in zip(photo.boxes.tolist(), photo.labels, strict=True):
            if max(box[2] - box[0], box[3] - box[1]) >= MIN_FACE:
                yield box, label
    else:
        tallest = max(range(len(boxes)), key=lambda index: boxes[index][3] - boxes[index][1], default=-1)
        yield from ((box, photo.label if index == tallest else "") for index, box in enumerate(boxes))


def fit_last_layer(
    kernel: np.ndarray, bias: np.ndarray, faces: FaceFeatures, background: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel (k, classes) and a bias (classes,) that fit the labels better, close to those given.

    Logistic regression over the classes but `background` ("last layer re-training", Kirichenko et al., 2023), with a penalty on
    the change of the kernel. The probability of the background, of faces with and without a label, is held at what it was.
    """
    kernel, bias = kernel.astype(np.float32), bias.astype(np.float32)
    features, classes = faces.features.astype(np.float32), kernel.shape[1]
    is_label = np.arange(classes) != (-1 if background is None else background)
    known = np.isin(faces.labels, np.flatnonzero(is_label))
    label_weights = np.where(known, faces.weights, 0)
    label_weights = (label_weights / label_weights.sum()).astype(np.float32)
    wanted = np.eye(classes, dtype=np.float32)[np.where(known, faces.labels, 0)]
    before = softmax(features @ kernel + bias, axis=1)
    face = before[:, is_label].sum(axis=1)  # probability that it is one
    share = np.float32(BACKGROUND_WEIGHT / len(features)) if background is not None else np.float32(0)

    def loss(change: np.ndarray) -> tuple[float, np.ndarray]:
        delta = change.reshape(-1, classes).astype(np.float32)
        logits = features @ (kernel + delta[:-1]) + bias + delta[-1]
        log_all = log_softmax(logits, axis=1)
        log_face = logsumexp(log_all[:, is_label], axis=1)
        among = np.where(is_label, np.exp(log_all - log_face[:, None]), 0)  # given that it is a face
        value = -(label_weights * ((wanted * log_all).sum(axis=1) - log_face)).sum()
        gradient = label_weights[:, None] * (among - wanted)
        if background is not None:
            value -= share * (face * log_face + (1 - face) * log_all[:, background]).sum()
            target = face[:, None] * among
            target[:, background] = 1 - face
            gradient += share * (np.exp(log_all) - target)
        value += RIDGE * (delta[:-1] ** 2).sum()
        rows = np.concatenate([features.T @ gradient + 2 * RIDGE * delta[:-1], gradient.sum(axis=0, keepdims=True)])
        return float(value), rows.astype(np.float64).ravel()

    start = np.zeros((features.shape[1] + 1) * classes)
    change = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x.reshape(-1, classes)
    return kernel + change[:-1].astype(np.float32), bias + change[-1].astype(np.float32)


def load_network(path: Path) -> Network:
    """Load a model whose last layer can be fitted. Raises InputError if it has other layers between backbone and last one."""
    network = load_keras(path)
    if network.info.hidden:
        raise InputError(f"{path}: has hidden layers before its last one; give a model that train_mask_detector.py wrote")
    return network


def refit(network: Network, faces: FaceFeatures) -> None:
    """Fit the last layer of a network to faces."""
    layer = network.head.layers[-1]
    kernel, bias = layer.get_weights()
    layer.set_weights(fit_last_layer(kernel, bias, faces, network.info.background))
