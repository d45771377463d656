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

from facemask.cli import run as cli
from facemask.errors import InputError

logger = logging.getLogger("facemask")

REPORT_JSON, REPORT_MD = "report.json", "report.md"
CURVES, RELIABILITY, MISTAKES = "precision_recall.png", "reliability.png", "mistakes.png"
OUTPUTS = (REPORT_JSON, REPORT_MD, CURVES, RELIABILITY, MISTAKES)
MISTAKE_COUNT = 24  # of each kind on the sheet


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "-d", "--dataset", type=Path, required=True, metavar="FOLDER", help="annotated photos: images/ with annotations/"
    )
    cli.add_only_argument(parser)
    cli.add_detector_arguments(parser, tiles="auto")
    parser.add_argument(
        "--min-confidence", type=cli.probability, default=0.05, help="least confidence of a face in the precision-recall curves"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("evaluation"), metavar="FOLDER", help="where to write")
    return parser


def evaluate(args: argparse.Namespace) -> int:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.evaluation.metrics import evaluate_photo, report, worst_mistakes
    from facemask.evaluation.plots import plot_mistakes, plot_precision_recall, plot_reliability
    from facemask.io.outputs import check_writable, make_folder, text_output
    from facemask.training.dataset import read_annotated_photos

    names = cli.read_names(args.only)
    annotated = read_annotated_photos(args.dataset, names)
    if names and len(annotated) < len(set(names)):
        logger.warning("%s lists %d photos, %d of them are in %s", args.only, len(set(names)), len(annotated), args.dataset)
    make_folder(args.output)
    for name in OUTPUTS:
        check_writable(args.output / name)
    detector = cli.load_detector(args)
    classes = detector.classifier.info.classes
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
    return cli.DONE if len(photos) == len(annotated) else cli.FAILED


def to_markdown(figures: dict, args: argparse.Namespace) -> str:
    """Return the figures of a report as a page of Markdown tables."""
    from facemask.annotate import readable
    from facemask.evaluation.metrics import SMALL

    confidence = figures["confidence"]
    found = f"{figures['face_precision']:.3f} / {figures['face_recall']:.3f}"
    lines = [
        f"# {args.model.name} and {args.face.name} on {figures['photos']} photos, {figures['faces']} faces",
        "",
        "| | |",
        "|---|---|",
        f"| face average precision, overlap 0.5 | {figures['face_average_precision']:.3f} |",
        f"| face precision / recall at confidence {confidence:g} | {found} |",
        *(
            f"| mean average precision, {group.replace('_', ' ')} | {value:.3f} |"
            for group, value in figures["mean_average_precision"].items()
        ),
    ]
    for where in ("true boxes", "found faces"):
        labels = figures[f"labels_on_{where.replace(' ', '_')}"]
        lines += [
            f"| labels right on {where} | {percent(labels['right'])} |",
            f"| mask or none on {where}, balanced | {percent(labels['balanced_2_classes'])} |",
            f"| macro F1 on {where}, all classes | {number(labels['macro_f1'])} |",
        ]
    lines += [
        f"| expected calibration error | {figures['calibration']['expected_error']:.3f} |",
        f"| milliseconds a photo (median), reading not counted | {figures['milliseconds_a_photo_median']:.0f} |",
        f"| milliseconds a face, classifier alone | {figures['milliseconds_a_face']:.1f} |",
        "",
        f"By face height in pixels; found at confidence {confidence:g}; mask or none (a mask worn wrong counts as none), the",
        "mean over both:",
        "",
        "| height | faces | found | labels on true boxes | labels on found faces |",
        "|---|---|---|---|---|",
    ]
    for group in figures["by_height"]:
        height = f"{group['from']} to {group['to']}" if group["to"] else f"{group['from']} and more"
        recall = percent(group["found"] / group["faces"] if group["faces"] else None)
        labels = (percent(group[f"labels_on_{where}"]["balanced_2_classes"]) for where in ("true_boxes", "found_faces"))
        together = " (together)" if (group["from"], group["to"]) == SMALL else ""
        lines.append(f"| {height}{together} | {group['faces']} | {recall} | {' | '.join(labels)} |")
    classes = figures["confusion"]["classes"]
    lines += [
        "",
        "Confusion on the true boxes, a row a true class:",
        "",
        f"| | {' | '.join(map(readable, classes))} |",
        "|---" * (1 + len(classes)) + "|",
    ]
    for name, row in zip(classes, figures["confusion"]["rows_are_true"], strict=True):
        lines.append(f"| {readable(name)} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main(argv: list[str] | None = None) -> int:
    return cli.run(evaluate, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
