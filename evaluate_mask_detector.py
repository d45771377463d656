#!/usr/bin/env python3
"""Measure the detector on photos with annotated faces (Pascal VOC: images/ and annotations/*.xml).

  python evaluate_mask_detector.py -d photos                            all photos of the folder
  python evaluate_mask_detector.py -d photos --only val.txt -o report   those that a file lists; where to write
  python evaluate_mask_detector.py -d photos -m mine.keras              your own model

Prints and writes, to a folder: report.md and report.json, precision_recall.png, reliability.png (are stated
probabilities true?) and mistakes.png, the worst ones to look at. A face counts as found from an overlap
(intersection over union) of 0.5. Needs what requirements.txt installs, but not TensorFlow.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, FAILED, run
from facemask.errors import InputError

logger = logging.getLogger("facemask")

REPORT_JSON, REPORT_MD = "report.json", "report.md"
CURVES, RELIABILITY, MISTAKES = "precision_recall.png", "reliability.png", "mistakes.png"
OUTPUTS = (REPORT_JSON, REPORT_MD, CURVES, RELIABILITY, MISTAKES)
MISTAKE_COUNT = 24  # of each kind on the sheet


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "-d", "--dataset", type=Path, required=True, metavar="FOLDER", help="annotated photos: images/ with annotations/"
    )
    options.add_only_argument(parser)
    options.add_detector_arguments(parser, tiles="auto")
    parser.add_argument(
        "--min-confidence",
        type=options.probability,
        default=0.05,
        help="least confidence of a face in the precision-recall curves",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("evaluation"), metavar="FOLDER", help="where to write")
    return parser


def evaluate(args: argparse.Namespace) -> int:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.evaluation.metrics import evaluate_photo
    from facemask.evaluation.plots import plot_mistakes, plot_precision_recall, plot_reliability
    from facemask.evaluation.report import report, to_markdown, worst_mistakes
    from facemask.io.outputs import check_writable, make_folder, text_output
    from facemask.training.dataset import read_annotated_photos

    names = options.listed_names(args.only, [args.dataset])[args.dataset]
    annotated = read_annotated_photos(args.dataset, names)
    if names and len(annotated) < len(set(names)):
        logger.warning("%s lists %d photos, %d of them are in %s", ", ".join(args.only), len(set(names)), len(annotated), args.dataset)
    make_folder(args.output)
    for name in OUTPUTS:
        check_writable(args.output / name)
    detector = options.load_detector(args)
    classes = detector.classifier.info.labels
    unknown = sorted({label for photo in annotated for label in photo.labels} - set(classes))
    if unknown:
        logger.warning("%s does not know %s: such faces count as labelled wrong", args.model, ", ".join(unknown))
    confidence = min(args.min_confidence, args.confidence)
    photos = []
    with logging_redirect_tqdm([logging.getLogger()]):
        for photo in tqdm(annotated, desc="photos", unit="photo"):
            try:
                photos.append(evaluate_photo(detector, photo, confidence, args.max_pixels))
            except InputError as error:
                logger.warning("left out: %s", error)
    if not any(photo.truth.labels for photo in photos):
        raise InputError(f"{args.dataset}: no photo with a face could be read; see the warnings above")

    figures = report(photos, classes, args.confidence)
    markdown = to_markdown(figures, args)
    for name, text in ((REPORT_JSON, json.dumps(figures, indent=1)), (REPORT_MD, markdown)):
        with text_output(args.output / name) as file:
            print(text, file=file)
    plot_precision_recall(args.output / CURVES, figures)
    plot_reliability(args.output / RELIABILITY, figures["calibration"])
    mistakes = worst_mistakes(photos, classes, args.confidence, MISTAKE_COUNT)
    plot_mistakes(args.output / MISTAKES, mistakes, max_pixels=args.max_pixels)
    print(markdown)
    logger.info("saved to %s", args.output)
    return DONE if len(photos) == len(annotated) else FAILED


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
