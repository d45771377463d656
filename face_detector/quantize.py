#!/usr/bin/env python3
"""Write the face detector with 8-bit integers, which onnxruntime runs in half of the time.

  python -m face_detector.quantize -d photos --only train.txt     face_detector/masked_faces_ssd.int8.onnx

Detection takes it instead of the float32 file beside it where the processor suits, if it was made from this very file. The
ranges of the values are those of some photos that the detector was trained on.
"""

import argparse
import logging
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from facemask.cli import options as cli
from facemask.cli.run import DONE, run
from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector
from facemask.models.int8 import int8_file

logger = logging.getLogger("facemask")

# The layers behind the backbone stay float32: with integers they cost half a point of face AP. So do the first layers,
# whose integer convolutions of few channels are slower than those of float32 (face_detector/README.md has the figures).
FLOAT_LAYERS = ("stem", "block0", "up", "lateral", "merge", "context", "head", "faces")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m face_detector.quantize", description=__doc__, formatter_class=cli.HelpFormatter
    )
    parser.add_argument("-d", "--dataset", type=Path, required=True, metavar="FOLDER", help="images/ with annotations/")
    parser.add_argument("--only", type=Path, metavar="FILE", help="names of photos to choose from, one per line (default: all)")
    parser.add_argument(
        "-f",
        "--face",
        type=Path,
        default=cli.DEFAULT_FACE_DETECTOR / CenterFaceDetector.FILE_NAME,
        help="face detector with float32 (default: face_detector/masked_faces_ssd.onnx)",
    )
    parser.add_argument("--count", type=cli.positive_int, default=64, help="photos to use, chosen at random")
    parser.add_argument("--seed", type=cli.natural_int, default=42, help="seed of their choice")
    return parser


def quantize(args: argparse.Namespace) -> int:
    import numpy as np
    from tqdm import tqdm

    from facemask.io.outputs import check_outputs
    from facemask.training.formats import read_annotated_photos
    from facemask.training.quantize import write_int8

    if args.face.suffix != ".onnx" or not args.face.is_file():
        raise InputError(f"{args.face}: no such .onnx file; give -f the face detector with float32")
    check_outputs([int8_file(args.face)], [args.face])
    photos = read_annotated_photos(args.dataset, cli.read_names(args.only) if args.only else None)
    chosen = np.random.default_rng(args.seed).permutation(len(photos))[: args.count]
    paths = tqdm([photos[index].path for index in chosen], unit="photo", disable=None)
    output = write_int8(args.face, record_inputs(args.face, paths), FLOAT_LAYERS)
    logger.info("saved to %s", output)
    return DONE


def record_inputs(file: Path, photos: Iterable[Path]) -> list:
    """Return what the detector's network receives when it runs on the photos: float32 (n, 3, H, W) each."""
    from facemask.io.images import read_image

    inputs = []
    detector = CenterFaceDetector.load(file)
    run_network = detector.run

    def record_and_run(images):
        inputs.append(images)
        return run_network(images)

    detector = replace(detector, run=record_and_run)
    for photo in photos:
        detector.detect(read_image(photo))
    return inputs


def main(argv: list[str] | None = None) -> int:
    return run(quantize, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
