#!/usr/bin/env python3
"""Measure accuracy and speed of the face detectors, this project's at several sizes.

  python -m benchmarks.face_detectors -d photos --only val.txt

prints a Markdown table and draws it (-o). Average precision is on all photos; times are on every --every-th one, in turns
of detectors, as ratios to res10 in cv2.dnn in the same turn, as absolute times depend on the machine.
"""

import argparse
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from facemask.cli import options
from facemask.cli.run import DONE, run
from facemask.errors import InputError

ROOT = Path(__file__).parents[1]
SIZES = (256, 320, 384, 448, 512, 576, 640, 800)
MIN_CONFIDENCE = 0.05
TURNS = 9
REFERENCE = "res10, 300x300"
TILED = "ours, 512 px, tiles"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("-d", "--dataset", type=Path, required=True, metavar="FOLDER", help="annotated photos")
    options.add_only_argument(parser)
    parser.add_argument("-f", "--face", type=Path, default=options.DEFAULT_FACE_DETECTOR, help="our face detector")
    parser.add_argument(
        "-s", "--sizes", type=options.detector_size, nargs="+", default=SIZES, metavar="PX", help="sizes of the face detector, px"
    )
    parser.add_argument("--every", type=options.positive_int, default=8, help="time every N-th photo")
    parser.add_argument("-o", "--output", type=Path, default=Path("face_detectors.png"), help="plot to write")
    return parser


def measure(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from facemask.evaluation.metrics import FACE, EvaluatedPhoto, match_faces, precision_recall
    from facemask.io.images import read_image
    from facemask.io.outputs import check_writable
    from facemask.models.center_face import CenterFaceDetector
    from facemask.models.face_detectors import load_face_detector
    from facemask.training.formats import read_annotated_photos

    options.check_plot_name(args.output)
    check_writable(args.output)
    photos = read_annotated_photos(args.dataset, options.listed_names(args.only, [args.dataset])[args.dataset])
    res10 = load_face_detector(ROOT / "face_detector" / "res10_300x300_ssd.onnx")
    ours = load_face_detector(args.face, args.sizes[0])
    if not isinstance(ours, CenterFaceDetector):
        raise InputError(f"{args.face}: is not this project's own face detector; give -f face_detector")
    tiled = replace(ours, tiles=True)  # one session for all: the memory and threads of many would disturb each other
    settings = {f"ours, {size} px": (size, False) for size in args.sizes} | {TILED: (512, True)}  # longest side, tiles
    names = [REFERENCE, *settings]

    def detect(name: str, image: np.ndarray, confidence: float) -> list:
        if name == REFERENCE:
            return res10.detect(image, confidence)
        size, tiles = settings[name]
        return (tiled if tiles else ours).detect(image, confidence, size)

    images = [read_image(photo.path) for photo in tqdm(photos, desc="reading", unit="image")]
    rows = []
    for name in tqdm(names, desc="detecting", unit="detector"):
        found = [detect(name, image, MIN_CONFIDENCE) for image in images]
        evaluated = [EvaluatedPhoto.of_faces(photo, faces) for photo, faces in zip(photos, found, strict=True)]
        match = match_faces(evaluated, 0.5)
        right = sum(index is not None for of_photo in match.of_faces for index in of_photo)
        wrong = sum(map(len, match.false_positives))
        average_precision = precision_recall(evaluated, [FACE], lambda label: FACE)[FACE].average_precision
        assert average_precision is not None, "a data set without faces is not read"
        rows.append((name, average_precision, right / max(right + wrong, 1), right / sum(len(photo.labels) for photo in photos)))
    seconds = defaultdict(list)
    for _ in tqdm(range(TURNS), desc="timing", unit="turn"):
        for name in names:
            time.sleep(0.3)  # until the threads of the previous detector are idle
            for image in images[:: args.every]:
                start = time.perf_counter()
                detect(name, image, 0.5)
                seconds[name].append(time.perf_counter() - start)
    # The median of a turn is compared with that of res10 in the same turn: the speed of a machine drifts.
    medians = {name: np.median(np.reshape(times, (TURNS, -1)), axis=1) for name, times in seconds.items()}
    ratios = {name: np.median(times / medians[REFERENCE]) for name, times in medians.items()}
    print("| | face AP | precision / recall at 0.5 | time per photo, relative to res10 |\n|---|---|---|---|")
    for name, average_precision, precision, recall in rows:
        print(f"| {name} | {average_precision:.3f} | {precision:.2f} / {recall:.2f} | {ratios[name]:.2f} |")
    plot(args.output, {name: (ratios[name], average_precision) for name, average_precision, *_ in rows})
    return DONE


def plot(path: Path, points: dict[str, tuple[float, float]]) -> None:
    """Write a plot of average precision over time; `points` is x, y of each detector."""
    from facemask.evaluation.plots import plt, save_figure

    figure, axes = plt.subplots(figsize=(6.5, 4), constrained_layout=True)
    sizes = {name: point for name, point in points.items() if name not in (REFERENCE, TILED)}
    axes.plot(*zip(*sizes.values(), strict=True), "o-", label="ours, by size")
    axes.plot(*points[REFERENCE], "s", color="tab:red", label=REFERENCE)
    axes.plot(*points[TILED], "^", color="tab:green", label=TILED)
    for name, point in sizes.items():
        axes.annotate(name.split()[1], point, textcoords="offset points", xytext=(4, -12))
    axes.axvline(1, color="grey", linestyle=":")
    axes.set(xlabel="median time per photo, relative to res10", ylabel="face AP, IoU 0.5")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(run(measure, build_parser().parse_args()))
