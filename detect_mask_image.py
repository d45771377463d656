#!/usr/bin/env python3
"""Detect the faces in images, and classify the mask of each.

  python detect_mask_image.py -i examples/people.jpg -o out.jpg      one image, annotated
  python detect_mask_image.py -i photos/ -o annotated/               every image of a folder
  python detect_mask_image.py -i "photos/*.png" --jsonl faces.jsonl --no-show
  python detect_mask_image.py -i photos/ --jsonl faces.jsonl --resume    continue a run that was interrupted or killed

Without -o, and where there is a display, a window shows each image: any key continues, q or Esc closes the window.
stdout has one line per face, stderr everything else. Exit code: 0 done (also if there is no face), 1 if an image or
the model could not be used, 2 for a wrong command line, 130 after Ctrl-C, 143 after SIGTERM.
"""

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, FAILED, one_line, run
from facemask.errors import InputError, OutputError
from facemask.io.kinds import Kind

logger = logging.getLogger("facemask")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "-i",
        "--image",
        nargs="+",
        action="extend",
        required=True,
        metavar="SOURCE",
        help="images: files, folders (with subfolders) or globs",
    )
    options.add_detector_arguments(parser, tiles="auto")
    parser.add_argument("-o", "--output", type=Path, help="write annotated images: a file for one image, else a folder")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write one JSON line per image, with its faces")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the --jsonl FILE of an interrupted run with the same options, or add new images to it",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one CSV row per face, at the end")
    options.add_show_argument(parser)
    return parser


def detect(args: argparse.Namespace) -> int:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.io.find_images import describe_skipped, find_images
    from facemask.io.images import is_large
    from facemask.io.records import run_records, skip_results
    from facemask.parallel import LONG_PREFETCH, PREFETCH, prefetch_map, thread_budget
    from facemask.types import FileResult

    skipped: Counter[Kind] = Counter()
    paths = skip_results(find_images(args.image, skipped), args.output)
    if skipped:
        logger.warning("not read: %s; -i FILE says for each how to convert it", describe_skipped(skipped))
    window = ImageWindow(args)
    statistics = Statistics(is_single=len(paths) == 1)
    with run_records(paths, args.jsonl, args.csv, args.output, args.resume) as records:
        images = records.remaining
        if records.done_before:
            logger.info("%d of %d images were done before", records.done_before, len(paths))
        workers, threads = thread_budget() if len(images) > 1 else (1, 0)
        detector = options.load_detector(args, threads)

        def detect_file(path: Path) -> FileResult:
            keep_image = bool(args.output or window.is_open)
            return detector.detect_file(path, args.confidence, max_pixels=args.max_pixels, keep_image=keep_image)

        prefetch = PREFETCH if args.output or window.is_open else LONG_PREFETCH
        with (
            logging_redirect_tqdm([logging.getLogger()]),
            closing(prefetch_map(detect_file, images, workers, prefetch, exclusive=is_large)) as results,
        ):
            for path, future in tqdm(results, total=len(images), unit="image", disable=None if len(images) > 1 else True):
                with statistics.failure_allowed():
                    result = future.result()
                    print_faces(path, result, write=tqdm.write)
                    annotated = annotate(result, records.outputs.get(path), window, statistics)
                    records.write(path, result, annotated)
                    statistics.add(result)
    for output in (args.output, args.jsonl, args.csv):
        if output:
            logger.info("saved to %s", output)
    statistics.log(len(images), time_shown=window.seconds)
    return FAILED if statistics.failed else DONE


def print_faces(path: Path, result, write) -> None:
    """Print one line per face of a FileResult with `write`, and warn if there may be more faces."""
    from facemask.labels import display_name

    if result.is_truncated:
        logger.warning("%s: only its %d most confident faces are kept; --max-faces keeps more", path, len(result.detections))
    if not result.detections:
        write(one_line(f"{path}: no face found"))
    for face in result.detections:
        label = f"{display_name(face.label, face.is_unsure)} {face.probability:.1%}"
        box = " ".join(map(str, face.box))
        write(one_line(f"{path}: {label}, box {box}, face confidence {face.confidence:.1%}"))


def annotate(result, output: Path | None, window: "ImageWindow", statistics: "Statistics") -> Path | None:
    """Draw the faces of a FileResult, where somebody wants to see them; return `output` if it was written."""
    from facemask.drawing import draw_detections
    from facemask.io.images import write_image

    if result.image is None or not (output or window.is_open):
        return None
    annotated, written = draw_detections(result.image, result.detections), None
    if output:
        with statistics.failure_allowed():
            write_image(output, annotated)
            written = output
    window.show(annotated)
    return written


class ImageWindow:
    """The window that shows each annotated image, where one is wanted."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Raises InputError if --show is given and there is no display."""
        from facemask.video.display import wants_window

        self.is_open = wants_window(args.show if args.show is not None or not args.output else False)
        self.seconds = 0.0  # in which it waited for a key

    def show(self, image) -> None:
        """Show an image, uint8 (H, W, 3) BGR, until a key is pressed, if the window is open."""
        from facemask.video.display import show_image

        if self.is_open:
            start = time.perf_counter()
            self.is_open = show_image(image)
            self.seconds += time.perf_counter() - start


class Statistics:
    """Counts the images done and failed, and the faces by label, and takes the time."""

    def __init__(self, is_single: bool) -> None:
        """The failure of the one image of an `is_single` run is an error, not a warning."""
        self.done, self.failed = 0, 0
        self.labels: Counter[str] = Counter()
        self._is_single, self._start = is_single, time.perf_counter()

    @contextmanager
    def failure_allowed(self) -> Iterator[None]:
        """Count an InputError of the block as a failure, with a warning; the other images continue."""
        try:
            yield
        except OutputError:
            raise
        except InputError as error:
            if self._is_single:
                raise
            logger.warning("%s", error)
            self.failed += 1

    def add(self, result) -> None:
        """Count an image that is done, a FileResult."""
        self.done += 1
        self.labels.update(face.label for face in result.detections)

    def log(self, total: int, time_shown: float) -> None:
        """Log the counts of `total` images, and the time without `time_shown`, s."""
        from facemask.labels import display_name

        seconds = time.perf_counter() - self._start - time_shown
        counts = ", ".join(f"{display_name(label)} {count}" for label, count in self.labels.most_common())
        faces = f"{self.labels.total()} faces{f' ({counts})' if counts else ''}"
        per_image = 1000 * seconds / max(self.done, 1)
        logger.info("%d of %d images, %s; %.2f s, %.0f ms per image", self.done, total, faces, seconds, per_image)


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and not args.jsonl:
        parser.error("--resume needs --jsonl FILE, the records of the run to continue")
    return run(detect, args)


if __name__ == "__main__":
    sys.exit(main())
