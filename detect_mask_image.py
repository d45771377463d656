#!/usr/bin/env python3
"""Detect the faces in images, and classify the mask of each.

  python detect_mask_image.py -i examples/people.jpg -o out.jpg      one image, annotated
  python detect_mask_image.py -i photos/ -o annotated/               every image of a folder
  python detect_mask_image.py -i "photos/*.png" --jsonl faces.jsonl --no-show
  python detect_mask_image.py -i photos/ --jsonl faces.jsonl --resume    continue a run that was interrupted or killed
  python detect_mask_image.py -i a.jpg -i https://example.org/b.jpg -o out/ --blur    faces hidden in what is written

Without -o, and where there is a display, a window shows each image: any key continues, q or Esc closes the window.
stdout has one line per face, stderr everything else. Exit code: 0 done (also if there is no face), 1 if an image or
the model could not be used, 2 for a wrong command line, 130 after Ctrl-C, 143 after SIGTERM.
"""

import argparse
import logging
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, FAILED, run
from facemask.errors import one_line

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
        help="images: files, folders (with subfolders), globs, or the URL of an image; may be given several times",
    )
    options.add_detector_arguments(parser, tiles="auto")
    options.add_turns_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=options.output_place,
        metavar="PLACE",
        help="write annotated images: a file for one image, else a folder (a slash at the end makes it one)",
    )
    parser.add_argument("--jsonl", type=options.file_path, metavar="FILE", help="write one JSON line per image, with its faces")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the --jsonl FILE of an interrupted run with the same options, or add new images to it",
    )
    parser.add_argument("--csv", type=options.file_path, metavar="FILE", help="write one CSV row per face, at the end")
    parser.add_argument(
        "--report",
        type=options.file_path,
        metavar="FILE",
        help="write an HTML page with all faces, the least certain first, to look through and filter",
    )
    parser.add_argument(
        "--blur",
        action="store_true",
        help="pixelate every detected face, less confident ones too, in all that is shown and written",
    )
    options.add_collect_arguments(parser)
    options.add_show_argument(parser)
    return parser


def detect(args: argparse.Namespace) -> int:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.images.outputs import ImageResult, PrintedFaces, Records, Summary
    from facemask.io.find_images import describe_skipped, find_images, find_urls
    from facemask.io.images import is_large
    from facemask.io.kinds import Kind
    from facemask.io.records import image_name, run_records, skip_results
    from facemask.parallel import LONG_PREFETCH, PREFETCH, prefetch_map, thread_budget

    skipped: Counter[Kind] = Counter()
    folder = args.output.path if args.output else None
    paths, urls = skip_results(find_images(args.image, skipped), folder), find_urls(args.image)
    if skipped:
        logger.warning("not read: %s; -i FILE says for each how to convert it", describe_skipped(skipped))
    window = open_window(args)
    summary = Summary(is_single=len(paths) == 1, skipped=skipped)
    with ExitStack() as stack:
        others = [args.report] if args.report else []
        records = stack.enter_context(run_records(paths, args.jsonl, args.csv, args.output, args.resume, urls, others))
        images = records.remaining
        if records.done_before:
            logger.info("%d of %d images were done before", records.done_before, len(paths))
        workers, threads = thread_budget() if len(images) > 1 else (1, 0)
        detector = options.load_detector(args, threads)
        files = open_files(records.outputs, summary, options.open_collector(args, detector.classifier.info.labels))
        report = open_report(args, records, summary, skipped)
        wanted = [PrintedFaces(lambda text: tqdm.write(one_line(text))), *files, Records(records), summary, *report, *window]
        outputs = [stack.enter_context(output) for output in wanted]
        keep_image = any(output.needs_image for output in outputs)
        detect_file = partial(timed_detection, detector, args, urls, keep_image)
        stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
        prefetch = PREFETCH if keep_image else LONG_PREFETCH
        results = stack.enter_context(closing(prefetch_map(detect_file, images, workers, prefetch, exclusive=is_large)))
        for path, future in tqdm(results, total=len(images), unit="image", disable=None if len(images) > 1 else True):
            with summary.failure_allowed():
                item = ImageResult(path, image_name(path, urls), *future.result())
                for output in outputs:
                    output.write(item)
    for place in (folder, args.jsonl, args.csv, args.report):
        if place:
            logger.info("saved to %s", place)
    summary.log(len(images), time_shown=sum(output.seconds for output in window))
    return FAILED if summary.failed else DONE


def timed_detection(detector, args: argparse.Namespace, urls: dict[Path, str], keep_image: bool, path: Path):
    """Return the FileResult of an image, downloaded if it is one of `urls`, and the seconds that it took."""
    from facemask.io.downloads import download, without_password
    from facemask.io.images import EncodedImage

    start = time.perf_counter()
    source = path
    if path in urls:
        source = EncodedImage.parse(without_password(urls[path]), download(urls[path]), args.max_pixels)
    result = detector.detect_file(source, args.confidence, max_pixels=args.max_pixels, keep_image=keep_image, hide=args.blur)
    return result, time.perf_counter() - start


def open_files(outputs: dict[Path, Path], summary, collector) -> list:
    """Return the outputs for -o and --collect that are wanted; `outputs` are the annotated files by image."""
    from facemask.images.outputs import AnnotatedFiles

    files: list = [AnnotatedFiles(outputs, summary)] if outputs else []
    if collector:
        from facemask.images.collecting import CollectedImages

        files.append(CollectedImages(collector))
    return files


def open_report(args: argparse.Namespace, records, summary, skipped: Counter) -> list:
    """Return the output for --report if it is wanted."""
    if not args.report:
        return []
    from facemask.images.report import HtmlReport

    return [HtmlReport(args.report, summary, skipped, records.lines.records() if args.resume else ())]


def open_window(args: argparse.Namespace) -> list:
    """Return the output for the window if it is wanted. Raises InputError if --show is given and there is no display."""
    from facemask.images.outputs import WindowOutput
    from facemask.video.display import show_image, wants_window

    show = args.show if args.show is not None or not args.output else False
    return [WindowOutput(show_image)] if wants_window(show) else []


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and not args.jsonl:
        parser.error("--resume needs --jsonl FILE, the records of the run to continue")
    if args.collect and args.blur:
        parser.error("--collect cannot be used with --blur: it writes images as they are, faces included")
    return run(detect, args)


if __name__ == "__main__":
    sys.exit(main())
