#!/usr/bin/env python3
"""Measure what is found and how it is labelled when photos are turned by 90, 180 and 270 degrees.

  python -m benchmarks.turned -d wider photos --only photos=val.txt

prints a Markdown table for each data set: the faces found at confidence 0.5, as a part of those found in the upright photos;
and, of the bare faces found, how many get another label than without_mask. Faces named `face` count as bare.
"""

import argparse
import sys
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, run

CONFIDENCE = 0.5
SAME_FACE = 0.4  # intersection over union of a detection and the face that it finds


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("-d", "--dataset", type=Path, nargs="+", required=True, metavar="FOLDER", help="annotated photos")
    options.add_only_argument(parser)
    options.add_detector_arguments(parser, tiles="auto")
    options.add_turns_argument(parser)
    parser.add_argument("--every", type=options.positive_int, default=1, metavar="N", help="measure every N-th photo")
    return parser


def measure(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from facemask.boxes import iou_matrix
    from facemask.io.images import read_image
    from facemask.labels import WITHOUT_MASK
    from facemask.training.formats import read_annotated_photos
    from facemask.turns import turn_box, turn_left

    names = options.listed_names(args.only, args.dataset)
    detector = options.load_detector(args)
    bare = {WITHOUT_MASK, "face"}
    print("| photos | turned by | faces found | of those found upright | bare faces, labelled otherwise |\n|---|---|---|---|---|")
    for folder in args.dataset:
        photos = read_annotated_photos(folder, names[folder])[:: args.every]
        found, labelled, wrong = [0] * 4, [0] * 4, [0] * 4
        for photo in tqdm(photos, desc=folder.name, unit="image", disable=None):
            image = read_image(photo.path)
            for turns in range(4):
                turned = turn_left(image, turns)
                truth = [turn_box(tuple(box), turns, image) for box in photo.boxes.astype(int).tolist()]
                detections = detector.detect(turned, CONFIDENCE)
                overlaps = iou_matrix(truth, [detection.box for detection in detections])
                for row, label in zip(overlaps, photo.labels, strict=True):
                    if not len(row) or row.max() < SAME_FACE:
                        continue
                    found[turns] += 1
                    if label in bare:
                        labelled[turns] += 1
                        wrong[turns] += detections[int(row.argmax())].label != WITHOUT_MASK
        for turns in range(4):
            share, part = found[turns] / max(found[0], 1), wrong[turns] / max(labelled[turns], 1)
            print(
                f"| {folder.name} | {90 * turns}° | {found[turns]} | {share:.3f} | {part:.1%} of {labelled[turns]} |", flush=True
            )
    return DONE


def main(argv: list[str] | None = None) -> int:
    return run(measure, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
