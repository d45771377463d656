#!/usr/bin/env python3
"""Measure this project's speed against the tutorial's way of doing the same, and against what this machine can do.

  python -m benchmarks.speed                                              the repository's images, a generated video
  python -m benchmarks.speed --photos photos/images --video street.mp4    your own; a minute or two per turn
  python -m benchmarks.speed --train faces --weights mobilenet_v2.h5      training as well, once: half an hour
  python -m benchmarks.speed --soak 60                                    memory over an hour of video as well

The tutorial's way is benchmarks/tutorial.py. Both sides do the same work on the same images in turns, and the ratio is
taken within a turn, as the speed of a machine drifts: reported are the median of the ratios and their range. Writes speed.md
and speed.png. Linux and macOS.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from examples.make_video import make_video
from facemask.cli import options
from facemask.cli.run import DONE
from facemask.cli.run import run as run_script
from facemask.errors import InputError

ROOT = Path(__file__).parents[1]
PEOPLE = ROOT / "examples" / "people.jpg"  # eight faces, four in a row
ONE_FACE = ROOT / "examples" / "astronaut.jpg"
FACE_REGIONS = {2: (slice(320), slice(609)), 4: (slice(320), slice(None)), 8: (slice(None),) * 2}
REPEATS = 15  # per turn, of what takes milliseconds
REST = 0.3  # s between two sides, until the threads of the first are at rest
GEMM_SIDE = 2048
LARGE_PHOTO = 1280  # px, longest side
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:]).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print()
print(json.dumps([time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
sys.exit(code)
"""
NUMBER_OF_FACES = r", (\d+) faces"  # in the last message of both scripts
DETECTOR_INPUT = (1, 3, 384, 512)  # for an image of 4:3


@dataclass(frozen=True)
class Run:
    """A finished process."""

    seconds: float
    cpu_seconds: float
    memory: float  # MB, peak
    output: list[str]  # lines of stdout and stderr, in one

    def find(self, pattern: str) -> float:
        """Return the last number that the pattern's group matches in the output."""
        return float(re.findall(pattern, "\n".join(self.output))[-1])

    def last_json(self) -> dict:
        return next(json.loads(line) for line in reversed(self.output) if line.startswith("{"))


@dataclass
class Row:
    """What was measured of both sides, one number per turn."""

    what: str
    unit: str
    theirs: list[float]
    ours: list[float]
    more_is_better: bool = False

    @property
    def ratios(self) -> np.ndarray:
        """Return how many times better this project is, by turn."""
        ratios = np.array(self.theirs) / np.array(self.ours)
        return 1 / ratios if self.more_is_better else ratios

    def to_markdown(self) -> str:
        theirs, ours = (f"{np.median(values):.{_digits(values)}f} {self.unit}" for values in (self.theirs, self.ours))
        ratios = self.ratios
        spread = f" ({ratios.min():.1f} to {ratios.max():.1f})" if len(ratios) > 1 else ""
        return f"| {self.what} | **{np.median(ratios):.1f}**{spread} | {theirs} | {ours} |"


def _digits(values: list[float]) -> int:
    return 2 if np.median(values) < 2 else 1 if np.median(values) < 20 else 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="images to detect faces in (default: examples)")
    parser.add_argument("--count", type=options.positive_int, default=100, help="number of images, spread over the folder")
    parser.add_argument("--video", type=Path, metavar="FILE", help="(default: a generated one)")
    parser.add_argument("--frames", type=options.positive_int, metavar="N", help="use only its first N frames (default: all)")
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="photos in with_mask/ and without_mask/ to train on")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of MobileNetV2(include_top=False), for --train")
    parser.add_argument(
        "--soak",
        type=options.positive_int,
        metavar="MINUTES",
        help="loop the video for this time, and measure the memory (default: not)",
    )
    parser.add_argument("--turns", type=options.positive_int, default=5, help="turns of each measurement")
    parser.add_argument("-o", "--output", type=Path, default=Path("speed"), metavar="FOLDER", help="where to write")
    return parser


def measure(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from facemask.io.find_images import find_images
    from facemask.io.images import read_image
    from facemask.io.outputs import make_folder, text_output

    if args.train and not args.weights:
        raise InputError("--train: needs ImageNet's weights too; give --weights mobilenet_v2_imagenet_no_top.weights.h5")
    make_folder(args.output)
    photos = find_images([str(args.photos or ROOT / "examples")])
    photos = [photos[index] for index in np.linspace(0, len(photos) - 1, min(args.count, len(photos))).astype(int)]
    for photo in photos:
        read_image(photo)  # so that none stops the measurement later
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        model = work / "tutorial.keras"
        tutorial(["make", model])
        video = args.video.resolve() if args.video else make_video(work / "people.mp4")
        frames = ["--max-frames", args.frames] if args.frames else []
        large = make_large_photos(work / "large")
        rows: list[Row] = []
        memory: dict[str, float] = {}
        bar = tqdm(total=4 + bool(args.train) + bool(args.soak), unit="measurement")

        def add(new: list[Row]) -> None:
            rows.extend(new)
            bar.update()

        add(measure_start(model, args.turns, memory))
        add(measure_folder(model, photos, work, args.turns, memory))
        add(measure_video(model, video, frames, work, args.turns, memory))
        memory[f"images of {LARGE_PHOTO} px"] = detect_images([large]).memory
        if args.soak:
            memory |= measure_soak(video, args.soak, work)
            bar.update()
        if args.train:
            add(measure_training(args.train.resolve(), args.weights.resolve(), work))
        add(measure_faces(model, args.turns))
        limits = measure_limits(args.turns)
        bar.close()
    page = to_markdown(rows, limits, memory, args)
    print(page)
    with text_output(args.output / "speed.md") as file:
        print(page, file=file)
    plot(args.output / "speed.png", rows)
    print(f"saved to {args.output}", file=sys.stderr)
    return DONE


def run(command: list) -> Run:
    """Run a Python script to its end. Raises InputError if it fails."""
    with tempfile.TemporaryFile("w+") as output:
        # Started by a small process: Linux includes in the peak memory of a process that of the process that started it.
        launcher = [sys.executable, "-c", LAUNCHER, sys.executable, *map(str, command)]
        code = subprocess.run(launcher, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT).returncode
        output.seek(0)
        *lines, measured = output.read().rstrip().splitlines()
    if code:
        raise InputError(f"{' '.join(map(str, command[:2]))}: failed; its last lines:\n" + "\n".join(lines[-9:]))
    seconds, cpu_seconds, memory = json.loads(measured)
    unit = 1e6 if sys.platform == "darwin" else 1e3  # ru_maxrss is in bytes there, in kilobytes elsewhere
    return Run(seconds, cpu_seconds, memory / unit, [line for line in lines if line])


def tutorial(arguments: list) -> Run:
    return run(["-m", "benchmarks.tutorial", *arguments])


def detect_images(arguments: list) -> Run:
    return run(["detect_mask_image.py", "--no-show", "-i", *arguments])


def measure_start(model: Path, turns: int, memory: dict) -> list[Row]:
    """Measure from the command to the faces of one image, all imports included."""
    theirs, ours = [], []
    for _ in range(turns):
        theirs.append(tutorial(["images", model, PEOPLE]))
        ours.append(detect_images([PEOPLE]))
    memory["one image, the tutorial's way"], memory["one image"] = theirs[0].memory, ours[0].memory
    return [
        Row("start to the faces of one image", "s", [one.seconds for one in theirs], [one.seconds for one in ours]),
        Row("the same, CPU time", "s", [one.cpu_seconds for one in theirs], [one.cpu_seconds for one in ours]),
    ]


def measure_folder(model: Path, photos: list[Path], work: Path, turns: int, memory: dict) -> list[Row]:
    """Measure all images of a folder, networks loaded."""
    folder = work / "photos"
    folder.mkdir()
    for number, photo in enumerate(photos):
        shutil.copy(photo, folder / f"{number}{photo.suffix}")
    theirs, ours = [], []
    for _ in range(turns):
        found = tutorial(["images", model, *sorted(folder.iterdir())]).last_json()
        theirs.append(1000 * found["seconds"] / len(photos))
        result = detect_images([folder])
        ours.append(result.find(r"([\d.]+) ms per image"))
    memory[f"{len(photos)} images"] = result.memory
    faces = f"{result.find(NUMBER_OF_FACES):.0f} faces found; the tutorial: {found['faces']}"
    return [Row(f"one image of a folder of {len(photos)} ({faces})", "ms", theirs, ours)]


def measure_video(model: Path, video: Path, frames: list, work: Path, turns: int, memory: dict) -> list[Row]:
    """Measure frames per second, boxes drawn and written, networks loaded; `frames` is --max-frames and a number, or empty."""
    rates: dict[str, list[float]] = {"tutorial": [], "at once": [], "ours": []}
    out = work / "out.mp4"
    for _ in range(turns):
        for name, way in (("tutorial", []), ("at once", ["--at-once"])):
            found = tutorial(["video", model, video, out, *frames, *way]).last_json()
            rates[name].append(found["frames"] / found["seconds"])
        result = run(["detect_mask_video.py", "--no-show", "-i", video, "-o", out, *frames])
        rates["ours"].append(result.find(r"([\d.]+) frames/s"))
    memory["video"] = result.memory
    faces = f"{result.find(NUMBER_OF_FACES):.0f} faces found; the tutorial: {found['faces']}"
    ours = rates["ours"]
    return [
        Row(f"video, written, against `predict` for each face ({faces})", "frames/s", rates["tutorial"], ours, True),
        Row(
            "the same against `predict` for each frame, as its video script does",
            "frames/s",
            rates["at once"],
            rates["ours"],
            True,
        ),
    ]


def measure_faces(model: Path, turns: int) -> list[Row]:
    """Measure an image by its number of faces, and the classifier alone on eight, in one process."""
    from benchmarks.tutorial import Tutorial
    from facemask.detector import MaskDetector
    from facemask.io.images import read_image
    from facemask.models.face_detectors import load_face_detector
    from facemask.models.mask_classifier import MaskClassifier

    theirs = Tutorial(str(model))
    ours = MaskDetector(load_face_detector(options.DEFAULT_FACE_DETECTOR), MaskClassifier.load(options.DEFAULT_MODEL))
    image = read_image(PEOPLE)
    boxes = [face.box for face in ours.faces.detect(image)]
    parts = {1: read_image(ONE_FACE)} | {count: image[region].copy() for count, region in FACE_REGIONS.items()}
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    for count, part in parts.items():
        found = len(theirs.detect(part)), len(ours.detect(part))
        if found != (count, count):
            raise InputError(f"the image of {count} faces: the tutorial finds {found[0]} in it, this project {found[1]}")
        pairs[f"an image of {count} face{'s'[: count > 1]}"] = partial(theirs.detect, part), partial(ours.detect, part)
    pairs["one face of a batch of 8"] = lambda: theirs.classify(image, boxes), lambda: ours.classifier.classify(image, boxes)
    rows = {what: Row(what, "ms", [], []) for what in pairs}
    for _ in range(turns):
        for what, (slow, fast) in pairs.items():
            share = len(boxes) if what.startswith("one face of") else 1
            rows[what].theirs.append(milliseconds(slow, 3) / share)
            rows[what].ours.append(milliseconds(fast, REPEATS) / share)
    return list(rows.values())


def milliseconds(function: Callable, repeats: int) -> float:
    """Return the median time of a call in ms, without the first one."""
    time.sleep(REST)
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))


def measure_limits(turns: int) -> list[tuple]:
    """Return for each network its name, millions of multiply-adds, ms, and the share of the peak speed of this machine."""
    import onnx

    from facemask.models.face_detectors import choose_face_detector
    from facemask.models.model_file import ModelFile
    from facemask.models.onnx_session import open_onnx

    square = np.random.default_rng(0).random((2, GEMM_SIDE, GEMM_SIDE), np.float32)
    plain = options.DEFAULT_FACE_DETECTOR / "masked_faces_ssd.onnx"
    networks = {
        "classifier, 8 faces of 128 px": (options.DEFAULT_MODEL.with_suffix(".onnx"),) * 2 + ((8, 3, 128, 128),),
        "face detector in float32, 512x384 px": (plain, plain, DETECTOR_INPUT),
    }
    used = choose_face_detector(options.DEFAULT_FACE_DETECTOR).path
    if used != plain:
        networks["face detector as used (int8), 512x384 px"] = plain, used, DETECTOR_INPUT
    rows = []
    for name, (counted, timed, shape) in networks.items():
        network, _ = open_onnx(ModelFile.read(timed))
        images = np.zeros(shape, np.float32)
        work = multiply_adds(onnx.load(counted), shape)
        times = [
            (milliseconds(partial(network, images), REPEATS), milliseconds(lambda: square[0] @ square[1], 3))
            for _ in range(turns)
        ]
        part = np.median([work / ms / (GEMM_SIDE**3 / product) for ms, product in times])
        rows.append((name, work / 1e6, np.median(times, axis=0)[0], part))
    return rows


def multiply_adds(model, shape: tuple[int, ...]) -> int:
    """Count the multiply-adds of an ONNX network's convolutions and matrix products for an input of that shape."""
    import onnx

    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    for dimension, side in zip(dimensions, shape, strict=True):
        dimension.dim_value = side
    model = onnx.shape_inference.infer_shapes(model)
    values = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    weights = {weight.name: weight.dims for weight in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += np.prod(values[node.output[0]]) * np.prod(weights[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":
            total += np.prod(values[node.input[0]]) * np.prod(weights[node.input[1]][1:])
        elif node.op_type == "Gemm":
            total += values[node.input[0]][0] * np.prod(weights[node.input[1]])
    return int(total)


def measure_training(faces: Path, weights: Path, work: Path) -> list[Row]:
    """Measure from the command to a model; the tutorial always does all its epochs."""
    result = tutorial(["train", faces, "--weights", weights])
    theirs = result.last_json()["accuracy"]
    rows: list[Row] = []
    for what, epochs in (("the head alone, `-e 0`", ["-e", "0"]), ("default options", [])):
        model = work / f"trained{len(rows)}.keras"
        options = ["-d", faces, "--weights", weights, "-m", model, "-p", work / "plot.png", *epochs]
        ours = run(["train_mask_detector.py", *options])
        right = f"{ours.find(r'Accuracy ([0-9.]+)'):.1%} right; the tutorial: {theirs:.1%}"
        rows.append(Row(f"training, {what} ({right})", "s", [result.seconds], [ours.seconds]))
    return rows


def measure_soak(video: Path, minutes: int, work: Path) -> dict[str, float]:
    """Return the memory in MB that the video takes, once and looped for this many minutes."""
    looped = work / "looped.mp4"
    loop_video(video, looped, minutes)
    arguments = ["detect_mask_video.py", "--no-show", "--jsonl", work / "out.jsonl", "-i"]
    return {
        "the video once": run([*arguments, video]).memory,
        f"the video looped for {minutes} minutes": run([*arguments, looped]).memory,
    }


def loop_video(video: Path, looped: Path, minutes: int) -> None:
    """Write the frames of a video again and again, until it lasts this many minutes."""
    from facemask.video.sources import open_source
    from facemask.video.writer import VideoSink

    with open_source(str(video)) as source:
        rate = source.rate
    start = 0.0
    with VideoSink(looped, rate) as sink:
        while start < 60 * minutes:
            with open_source(str(video)) as source:
                for frame in source.frames():
                    sink.write(frame.image, start + frame.time)
            start += frame.time + float(1 / rate)


def make_large_photos(folder: Path, count: int = 12) -> Path:
    """Write the example image, enlarged, a few times."""
    import cv2

    from facemask.io.images import read_image, write_image

    folder.mkdir()
    image = read_image(PEOPLE)
    scale = LARGE_PHOTO / max(image.shape[:2])
    for number in range(count):
        write_image(folder / f"{number}.jpg", cv2.resize(image, None, fx=scale, fy=scale))
    return folder


def to_markdown(rows: list[Row], limits: list[tuple], memory: dict[str, float], args: argparse.Namespace) -> str:
    """Return all results as a page of Markdown."""
    import cv2
    import keras
    import onnxruntime

    lines = [
        "# Speed",
        "",
        f"By `benchmarks/speed.py`, {args.turns} turns (training once), on {cv2.getNumberOfCPUs()} cores, with onnxruntime "
        f"{onnxruntime.__version__}, OpenCV {cv2.__version__}, Keras {keras.__version__} on {keras.backend.backend()}.",
        "",
        "Ratios are medians over the turns, with their range; other columns are medians. Each side works on the faces that it",
        "detects itself. Accuracies after training are on each side's own test faces; only this project keeps near-duplicates",
        "of them out of training.",
        "",
        "| | times better | the tutorial's way | this project |",
        "|---|---|---|---|",
        *(row.to_markdown() for row in rows),
        "",
        "| network, on all cores | million multiply-adds | ms | share of this machine's float32 peak (a matrix product) |",
        "|---|---|---|---|",
        *(f"| {name} | {work:.0f} | {ms:.1f} | {part:.0%} |" for name, work, ms, part in limits),
        "",
        "| peak memory, whole process | MB |",
        "|---|---|",
        *(f"| {what} | {size:.0f} |" for what, size in memory.items()),
    ]
    return "\n".join(lines)


def plot(path: Path, rows: list[Row]) -> None:
    """Draw the ratios, with their range."""
    from matplotlib.ticker import ScalarFormatter

    from facemask.evaluation.plots import plt, save_figure

    figure, axes = plt.subplots(figsize=(9, 0.4 * len(rows) + 1), constrained_layout=True)
    medians = np.array([np.median(row.ratios) for row in rows])
    ranges = np.array([[median - row.ratios.min(), row.ratios.max() - median] for median, row in zip(medians, rows, strict=True)])
    names = [re.sub(r" \(.*|, as its.*", "", row.what.replace("`", "")) for row in rows]
    axes.barh(names, medians, xerr=ranges.T, color="tab:blue", ecolor="black", capsize=2)
    axes.bar_label(axes.containers[-1], [f" {value:.1f}" for value in medians], padding=3)
    axes.set(xlabel="times better than the tutorial's way", xscale="log", xlim=(1, 2 * max(row.ratios.max() for row in rows)))
    axes.set_xticks([1, 2, 5, 10, 20, 50])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.invert_yaxis()
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(run_script(measure, build_parser().parse_args()))
