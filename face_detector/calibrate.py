#!/usr/bin/env python3
"""Calibrate the face detector on several sets of photos, so that a confidence of 0.5 means the same in all of them.

  python -m face_detector.calibrate -f a.onnx -m mask_detector.onnx -d photos wider nofaces --only photos=val.txt --complete wider

Fits the two numbers that turn scores into probabilities (Platt scaling) to the detections in all sets, and writes them into the
file. Sets are annotated (images/ with annotations/) or photos without faces. Where annotators may have left faces out, those
that CenterFace finds do not count. Make the int8 file again afterwards.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from face_detector.progress import progress
from facemask.cli import options as cli
from facemask.cli.run import DONE, run
from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector, PlattScaling

logger = logging.getLogger("facemask")

SAME_FACE = 0.2  # intersection over union with an annotated face, or a likely one, from which a detection is that face


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m face_detector.calibrate", description=__doc__, formatter_class=cli.HelpFormatter
    )
    parser.add_argument("-d", "--dataset", type=Path, nargs="+", required=True, metavar="SET", help="sets of photos")
    cli.add_only_argument(parser)
    parser.add_argument(
        "--iou", nargs="+", action="extend", type=cli.set_threshold, default=[], metavar="SET=IOU",
        help="minimum intersection over union, 0..1, of a face and its detection (default: 0.5)",
    )  # fmt: skip
    parser.add_argument("-f", "--face", type=Path, required=True, metavar="FILE", help="face detector to calibrate, .onnx")
    parser.add_argument(
        "--complete", type=Path, nargs="+", default=(), metavar="SET",
        help="annotated sets in which every face is annotated; in the others, what CenterFace finds besides does not count",
    )  # fmt: skip
    parser.add_argument(
        "-m", "--model", type=Path, metavar="FILE",
        help="mask classifier that verifies the faces: the confidence after it did is calibrated (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--detector-size", type=cli.detector_size, default=CenterFaceDetector.size, metavar="PX",
        help="longest side in px to which photos are scaled",
    )  # fmt: skip
    return parser


@dataclass(frozen=True)
class Judged:
    """Detections of one or more sets; lists of one entry per detection."""

    scores: list[float]  # of the face detector, above 0 and below 1
    factors: list[float]  # that the classifier verifies them by, 0..1; 1 without one
    right: list[bool]

    def __add__(self, other: "Judged") -> "Judged":
        return Judged(self.scores + other.scores, self.factors + other.factors, self.right + other.right)


def calibrate(args: argparse.Namespace) -> int:
    from facemask.evaluation.sets import set_names
    from facemask.models.mask_classifier import MaskClassifier

    names, thresholds = cli.listed_names(args.only, args.dataset), dict(args.iou)
    detector = replace(CenterFaceDetector.load(args.face, args.detector_size, tiles=True), calibration=PlattScaling())
    classifier = MaskClassifier.load(args.model) if args.model else None
    total = Judged([], [], [])
    for folder, name in zip(args.dataset, set_names(args.dataset), strict=True):
        one = read_calibration_set(folder, names[folder], thresholds.get(folder, 0.5), name)
        found, verified = detect(detector, classifier, one.photos, name)
        judged = judge(one.photos, found, verified, one.iou_threshold, find_likely(one, folder in args.complete))
        logger.info("%s: %d photos, %d detections, %d right", name, len(one.photos), len(judged.right), sum(judged.right))
        total = total + judged
    scaling = fit_scaling(total)
    write_scaling(args.face, scaling)
    logger.info("scores calibrated: logit x %.3f %+.3f, in %s", scaling.slope, scaling.shift, args.face)
    return DONE


def read_calibration_set(folder: Path, names: Sequence[str] | None, iou_threshold: float, name: str):
    """Return a set of annotated photos, or of photos without faces. Raises InputError for class folders."""
    from facemask.evaluation.sets import Kind, read_set

    one = read_set(folder, names, {}, iou_threshold, name)
    if one.kind is Kind.CLASS_FOLDERS:
        raise InputError(f"{folder}: its photos have no boxes; give annotated photos, or photos without faces")
    return one


def find_likely(one, is_complete: bool) -> dict[str, list]:
    """Return, by a photo's path, the boxes of faces that the annotators of a set may have left out."""
    from facemask.evaluation.sets import Kind

    if is_complete or one.kind is Kind.NO_FACES:
        return {}
    from face_detector.sources import find_unannotated

    return find_unannotated(one.photos)


def detect(detector: CenterFaceDetector, classifier, photos: Sequence, name: str) -> tuple[list, list]:
    """Return the faces in each photo, and for each of them the factor by which the classifier verifies it."""
    import numpy as np

    from facemask.detector import verification
    from facemask.io.images import read_image

    found, verified = [], []
    for photo in progress(name)(photos):
        image = read_image(photo.path)
        faces = detector.detect(image, 0.0)
        boxes = [face.box for face in faces]
        found.append(faces)
        face_probabilities = classifier.classify_and_verify(image, boxes)[1] if classifier else np.ones(len(boxes))
        verified.append(verification(face_probabilities, boxes).tolist())
    return found, verified


def judge(
    photos: Sequence,
    found: Sequence[Sequence],
    verified: Sequence[Sequence[float]],
    iou_threshold: float = 0.5,
    unannotated: Mapping[str, list] | None = None,
) -> Judged:
    """Judge the detections in photos, `found`, each of which the classifier verifies by a factor of `verified`.

    A detection is right if it is an annotated face, else wrong. Detections on ignored faces, and on those of `unannotated`
    (boxes by the photo's name), are neither and do not count.
    """
    from facemask.boxes import iou_matrix
    from facemask.evaluation.metrics import EvaluatedPhoto, match_faces

    unannotated = unannotated or {}
    match = match_faces([EvaluatedPhoto.of_faces(*pair) for pair in zip(photos, found, strict=True)], 0.0, iou_threshold)
    judged = Judged([], [], [])
    for number, (photo, faces) in enumerate(zip(photos, found, strict=True)):
        wrong, ignored = match.false_positives[number], match.ignored[number]
        likely = iou_matrix([face.box for face in faces], unannotated.get(str(photo.path), []))
        for index, face in enumerate(faces):
            if index not in ignored and (index not in wrong or not (likely[index] >= SAME_FACE).any()):
                judged.scores.append(face.confidence)
                judged.factors.append(verified[number][index])
                judged.right.append(index not in wrong)
    return judged


def fit_scaling(judged: Judged) -> PlattScaling:
    """Fit what maps scores to the probability, after verification, that a detection is right: the maximum likelihood.

    Raises InputError if all are right, or all are wrong.
    """
    import numpy as np
    from scipy.optimize import minimize

    if len(set(judged.right)) < 2:
        raise InputError("too few faces found to calibrate by; give more photos")
    scores, factors, right = np.array(judged.scores), np.array(judged.factors), np.array(judged.right)

    def loss(numbers: np.ndarray) -> float:
        confidences = np.clip(PlattScaling(*numbers).to_probability(scores) * factors, 1e-9, 1 - 1e-9)
        return -float(np.log(np.where(right, confidences, 1 - confidences)).mean())

    slope, shift = minimize(loss, (1.0, 0.0), method="Nelder-Mead").x.tolist()
    return PlattScaling(slope, shift)


def write_scaling(path: Path, scaling: PlattScaling) -> None:
    """Replace the scaling in an ONNX file of this face detector."""
    import onnx

    from facemask.io.outputs import atomic_path
    from facemask.models.model_file import CHECKSUM_NAME, with_checksum

    model = onnx.load(path)
    kept = {prop.key: prop.value for prop in model.metadata_props if prop.key != CHECKSUM_NAME}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {**kept, CenterFaceDetector.METADATA_NAME: scaling.to_json()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(with_checksum(model.SerializeToString()))


def main(argv: list[str] | None = None) -> int:
    return run(calibrate, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
