#!/usr/bin/env python3
"""Find every face in pictures and tell whether it wears a mask.

  python detect_mask_image.py -i examples/people.jpg -o out.jpg      one picture, annotated
  python detect_mask_image.py -i photos/ -o annotated/               every picture of a folder
  python detect_mask_image.py -i "photos/*.png" --jsonl faces.jsonl --no-show
  python detect_mask_image.py -i photos/ --jsonl faces.jsonl --resume    go on where a run was interrupted, even killed

Without -o, and where there is a display, a window shows each picture: any key goes on, q or Esc ends the showing.
A line a face goes to stdout, everything else to stderr. Exit code: 0 done (also if there is no face), 1 if any
picture or the model could not be used, 2 for a wrong command line, 130 after Ctrl-C, 143 after SIGTERM.
"""

import argparse
import csv
import logging
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, FAILED, one_line, run
from facemask.errors import InputError, OutputError

logger = logging.getLogger("facemask")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "-i", "--image", nargs="+", required=True, metavar="SOURCE", help="pictures: files, folders (with subfolders) or globs"
    )
    options.add_detector_arguments(parser, tiles="auto")
    parser.add_argument("-o", "--output", type=Path, help="write annotated pictures: a file for one picture, else a folder")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write a JSON line a picture, with its faces")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the --jsonl FILE of a run with the same options that was interrupted, or add new pictures to it",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV row a face")
    options.add_show_argument(parser)
    return parser


def detect(args: argparse.Namespace) -> int:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.detector import FileResult
    from facemask.drawing import draw_detections
    from facemask.io.find_images import find_images
    from facemask.io.images import is_large, write_image
    from facemask.io.json_lines import resumable_json_lines
    from facemask.io.outputs import check_outputs, partial_path, text_output
    from facemask.io.records import check_records, face_record, leave_out_results, name_outputs, write_rows
    from facemask.labels import display_name
    from facemask.parallel import LONG_PREFETCH, PREFETCH, prefetch_map, thread_budget
    from facemask.video.display import show_image, wants_window

    paths = leave_out_results(find_images(args.image), args.output)
    show = wants_window(args.show if args.show is not None or not args.output else False)

    def detect_file(path: Path) -> FileResult:
        keep_image = bool(args.output or show)
        return detector.detect_file(path, args.confidence, max_pixels=args.max_pixels, keep_image=keep_image)

    done, failed, labels, start, shown = 0, 0, Counter(), time.perf_counter(), 0.0
    with ExitStack() as stack:
        check_outputs(filter(None, (args.jsonl, args.csv)), paths)
        jsonl = stack.enter_context(resumable_json_lines(args.jsonl, args.resume)) if args.jsonl else None
        before = check_records(jsonl.records(), args.jsonl) if args.resume else {}
        remaining = [path for path in paths if str(path) not in before]
        if before:
            logger.info("%d of %d pictures were done before", len(paths) - len(remaining), len(paths))
        outputs = name_outputs(remaining, args.output, set(map(os.path.abspath, filter(None, before.values()))))
        check_outputs(filter(None, (*outputs.values(), args.jsonl, args.csv)), paths)
        if args.csv and args.resume:
            partial_path(args.csv).unlink(missing_ok=True)  # all of it is written again, from the JSON lines
        rows = csv.writer(stack.enter_context(text_output(args.csv, newline=""))) if args.csv else None
        if rows:
            write_rows(rows, jsonl.records() if args.resume else [], is_first=True)
        workers, threads = thread_budget() if len(remaining) > 1 else (1, 0)
        detector = options.load_detector(args, threads)
        stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
        ahead = PREFETCH if args.output or show else LONG_PREFETCH
        looks = stack.enter_context(closing(prefetch_map(detect_file, remaining, workers, ahead, exclusive=is_large)))
        for path, looked in tqdm(looks, total=len(remaining), unit="picture", disable=None if len(remaining) > 1 else True):
            try:
                result = looked.result()
            except InputError as error:
                if len(paths) == 1:
                    raise
                logger.warning("%s", error)
                failed += 1
                continue
            detections = result.detections
            if result.is_truncated:
                logger.warning("%s: of its faces the surest %d are given; --max-faces gives more", path, len(detections))
            record = {"image": str(path), "width": result.width, "height": result.height}
            record["faces"] = [face_record(face) for face in detections]
            labels.update(detection.label for detection in detections)
            for line in describe(path, detections, display_name):
                tqdm.write(one_line(line))
            if args.output or show:
                annotated = draw_detections(result.image, detections)
                if args.output:
                    try:
                        write_image(outputs[path], annotated)
                        record["annotated"] = str(outputs[path])
                    except OutputError:
                        raise
                    except InputError as error:
                        if len(paths) == 1:
                            raise
                        logger.warning("%s", error)
                        failed += 1
                if show:
                    before_showing = time.perf_counter()
                    show = show_image(annotated)
                    shown += time.perf_counter() - before_showing
            if rows:
                write_rows(rows, [record], is_first=done == 0 and not before)
            if jsonl:
                jsonl.write(record)  # last: what has a line is done
            done += 1
    seconds = time.perf_counter() - start - shown
    for output in (args.output, args.jsonl, args.csv):
        if output:
            logger.info("saved to %s", output)
    counts = ", ".join(f"{display_name(label)} {count}" for label, count in labels.most_common())
    logger.info(
        "%d of %d pictures, %d faces%s; %.2f s, %.0f ms a picture",
        done,
        len(remaining),
        labels.total(),
        f" ({counts})" if counts else "",
        seconds,
        1000 * seconds / max(done, 1),
    )
    return FAILED if failed else DONE


def describe(path: Path, detections: list, display_name) -> list[str]:
    """Return what stdout says of a picture: a line a face."""
    if not detections:
        return [f"{path}: no face found"]
    return [
        f"{path}: {display_name(d.label)} {d.probability:.1%}, box {' '.join(map(str, d.box))}, face confidence {d.confidence:.1%}"
        for d in detections
    ]


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and not args.jsonl:
        parser.error("--resume needs --jsonl FILE, which tells what is done")
    return run(detect, args)


if __name__ == "__main__":
    sys.exit(main())
