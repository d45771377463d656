#!/usr/bin/env python3
"""Calibrate the face detector on several sets of photos, so that a confidence of 0.5 means the same in all of them.

  python -m face_detector.calibrate -f a.onnx -d photos street nofaces --only photos=val.txt --iou street=0.3

Fits the two numbers that turn scores into probabilities (Platt scaling) to the detections in all sets, and writes them into the
file. Sets are annotated (images/ with annotations/) or photos without faces. Make the int8 file again afterwards.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
        "--detector-size", type=cli.detector_size, default=CenterFaceDetector.size, metavar="PX",
        help="longest side in px to which photos are scaled",
    )  # fmt: skip
    return parser


def calibrate(args: argparse.Namespace) -> int:
    from facemask.evaluation.sets import Kind, read_set, set_names
    from facemask.io.images import read_image

    names, thresholds = cli.listed_names(args.only, args.dataset), dict(args.iou)
    detector = replace(CenterFaceDetector.load(args.face, args.detector_size, tiles=True), calibration=PlattScaling())
    scores: list[float] = []
    right: list[bool] = []
    for folder, name in zip(args.dataset, set_names(args.dataset), strict=True):
        one = read_set(folder, names[folder], {}, thresholds.get(folder, 0.5), name)
        if one.kind is Kind.CLASS_FOLDERS:
            raise InputError(f"{folder}: its photos have no boxes; give annotated photos, or photos without faces")
        found = [detector.detect(read_image(photo.path), 0.0) for photo in progress(name)(one.photos)]
        of_set = judge(one.photos, found, one.iou_threshold)
        logger.info("%s: %d photos, %d detections, %d right", name, len(one.photos), len(of_set[0]), sum(of_set[1]))
        scores += of_set[0]
        right += of_set[1]
    scaling = fit_scaling(scores, right)
    write_scaling(args.face, scaling)
    logger.info("scores calibrated: logit x %.3f %+.3f, in %s", scaling.slope, scaling.shift, args.face)
    return DONE


def judge(
    photos: Sequence, found: Sequence, iou_threshold: float = 0.5, unannotated: Mapping[str, list] | None = None
) -> tuple[list[float], list[bool]]:
    """Return the scores of the detections in annotated photos, and whether each is right.

    A detection is right if it is an annotated face, else wrong. Detections on ignored faces, and on those of `unannotated`
    (boxes by the photo's name), are neither and do not count. `found` has the detections of each photo.
    """
    from facemask.boxes import iou_matrix
    from facemask.evaluation.metrics import EvaluatedPhoto, match_faces

    unannotated = unannotated or {}
    match = match_faces([EvaluatedPhoto.of_faces(*pair) for pair in zip(photos, found, strict=True)], 0.0, iou_threshold)
    scores, right = [], []
    for photo, faces, wrong, ignored in zip(photos, found, match.false_positives, match.ignored, strict=True):
        likely = iou_matrix([face.box for face in faces], unannotated.get(photo.path.name, []))
        for index, face in enumerate(faces):
            if index not in ignored and (index not in wrong or not (likely[index] >= SAME_FACE).any()):
                scores.append(face.confidence)
                right.append(index not in wrong)
    return scores, right


def fit_scaling(scores: Sequence[float], right: Sequence[bool]) -> PlattScaling:
    """Fit what maps scores (n,), above 0 and below 1, to the probability that a detection is right.

    Raises InputError if all are right, or all are wrong.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    if len(set(right)) < 2:
        raise InputError("too few faces found to calibrate by; give more photos")
    values = np.array(scores)
    regression = LogisticRegression(C=np.inf).fit(np.log(values / (1 - values))[:, None], right)
    return PlattScaling(float(regression.coef_[0, 0]), float(regression.intercept_[0]))


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
