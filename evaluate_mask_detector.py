#!/usr/bin/env python3
"""Measure the detector on sets of photos: annotated, without faces, or one folder per class.

  python evaluate_mask_detector.py -d photos                            Pascal VOC, YOLO, COCO or CSV
  python evaluate_mask_detector.py -d photos --only val.txt -o report   the photos that a file lists; where to write
  python evaluate_mask_detector.py -d photos street nofaces dataset --iou street=0.3     one table over several sets
  python evaluate_mask_detector.py -d photos -m mine.keras              your own model

Prints one table over the sets and the details of each annotated one. Writes them to a folder as report.md and report.json,
and for each annotated set precision_recall.png, reliability.png (are the probabilities calibrated?) and mistakes.png, the
worst ones. Photos without annotations, in the folder itself or its images/, are taken to show no faces. In a set with the
splits train, val and test, test is measured. Needs what requirements.txt installs, but not TensorFlow.
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
MISTAKE_COUNT = 24  # of each kind in the plot
IOU_THRESHOLD = 0.5


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "-d", "--dataset", nargs="+", type=Path, required=True, metavar="SET",
        help="sets: photos annotated in Pascal VOC, YOLO, COCO or CSV, photos without faces, or one folder per class",
    )  # fmt: skip
    options.add_only_argument(parser)
    options.add_rename_argument(parser)
    parser.add_argument(
        "--iou", nargs="+", action="extend", type=options.set_threshold, default=[], metavar="SET=IOU",
        help="minimum intersection over union, 0..1, of a face of an annotated set and its detection (default: 0.5)",
    )  # fmt: skip
    options.add_detector_arguments(parser, tiles="auto")
    options.add_turns_argument(parser)
    parser.add_argument(
        "--min-confidence", type=options.probability, default=0.05,
        help="minimum confidence, 0..1, of a face in the precision-recall curves",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, default=Path("evaluation"), metavar="FOLDER", help="where to write")
    parser.add_argument("--json", action="store_true", help="print report.json instead of the tables")
    return parser


def evaluate(args: argparse.Namespace) -> int:
    from facemask.evaluation.report import set_report, summary_legend, summary_table
    from facemask.evaluation.run import measure, run_detector
    from facemask.evaluation.sets import Kind
    from facemask.io.outputs import text_output

    sets = read_sets(args)
    folders = make_folders(sets, args.output)
    detector = options.load_detector(args)
    warn_of_unknown_labels(sets, detector, args)
    confidences = args.confidence, min(args.confidence, args.min_confidence)
    metrics, skipped = {}, 0
    for one in sets:
        photos = run_detector(detector, one, min(confidences), args.max_pixels)
        metrics[one.name] = measure(one, photos, detector.classifier.info.labels, args.confidence)
        if one.kind is Kind.ANNOTATED:
            write_plots(folders[one.name], one, photos, metrics[one.name], detector, args)
        skipped += len(one.photos) - len(photos)
    lines = [f"# {args.model.name} and {args.face.name}", "", *summary_table(metrics), "", *summary_legend(*confidences)]
    for one in sets:
        if one.kind is Kind.ANNOTATED:
            lines += ["", *set_report(one.name, metrics[one.name])]
    markdown = "\n".join(lines)
    report = json.dumps({"model": args.model.name, "face_detector": args.face.name, "sets": metrics}, indent=1)
    for name, text in ((REPORT_JSON, report), (REPORT_MD, markdown)):
        with text_output(args.output / name) as file:
            print(text, file=file)
    print(report if args.json else markdown)
    logger.info("saved to %s", args.output)
    return FAILED if skipped else DONE


def read_sets(args: argparse.Namespace) -> list:
    """List the photos of each set. Raises InputError if a set has none, or an option names another set."""
    from facemask.evaluation.sets import read_set, set_names

    names = options.listed_names(args.only, args.dataset)
    thresholds = dict(args.iou)
    for folder in thresholds.keys() - set(args.dataset):
        raise InputError(f"--iou: {folder} is not a set of -d; give one of {', '.join(map(str, args.dataset))}")
    sets = []
    for folder, name in zip(args.dataset, set_names(args.dataset), strict=True):
        one = read_set(folder, names[folder], dict(args.rename), thresholds.get(folder, IOU_THRESHOLD), name)
        listed = set(names[folder] or [])
        if listed and len(one.photos) < len(listed):
            logger.warning("--only lists %d photos, %d of them are in %s", len(listed), len(one.photos), folder)
        sets.append(one)
    return sets


def make_folders(sets: list, output: Path) -> dict[str, Path]:
    """Make the folders to write to, and return the one for each annotated set's plots."""
    from facemask.evaluation.sets import Kind
    from facemask.io.outputs import check_writable, make_folder

    annotated = [one.name for one in sets if one.kind is Kind.ANNOTATED]
    folders = {name: output / name.strip("/").replace("/", "_") if len(sets) > 1 else output for name in annotated}
    for folder in (output, *folders.values()):
        make_folder(folder)
    plots = [folder / name for folder in folders.values() for name in (CURVES, RELIABILITY, MISTAKES)]
    for path in (output / REPORT_JSON, output / REPORT_MD, *plots):
        check_writable(path)
    return folders


def warn_of_unknown_labels(sets: list, detector, args: argparse.Namespace) -> None:
    labels = {label for one in sets for photo in one.photos for label in photo.labels}
    unknown = sorted(labels - set(detector.classifier.info.labels))
    if unknown:
        logger.warning(
            "%s does not know the labels %s: such faces count as wrong labels; --rename renames them",
            args.model, ", ".join(unknown),
        )  # fmt: skip


def write_plots(folder: Path, one, photos: list, metrics: dict, detector, args: argparse.Namespace) -> None:
    from facemask.evaluation.plots import plot_mistakes, plot_precision_recall, plot_reliability
    from facemask.evaluation.report import worst_mistakes

    plot_precision_recall(folder / CURVES, metrics)
    plot_reliability(folder / RELIABILITY, metrics["label_calibration"])
    classes = detector.classifier.info.labels
    mistakes = worst_mistakes(photos, classes, args.confidence, MISTAKE_COUNT, one.iou_threshold)
    plot_mistakes(folder / MISTAKES, mistakes, max_pixels=args.max_pixels)


def main(argv: list[str] | None = None) -> int:
    return run(evaluate, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
