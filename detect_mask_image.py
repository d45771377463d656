#!/usr/bin/env python3
"""Find every face in pictures and tell whether it wears a mask.

  python detect_mask_image.py -i examples/people.jpg -o out.jpg      one picture, annotated
  python detect_mask_image.py -i photos/ -o annotated/               every picture of a folder
  python detect_mask_image.py -i "photos/*.png" --jsonl faces.jsonl --no-show

Without -o, and where there is a display, a window shows each picture: any key goes on, q or Esc ends the showing.
A line a face goes to stdout, everything else to stderr. Exit code: 0 done (also if there is no face), 1 if any
picture or the model could not be used, 2 for a wrong command line.
"""

import argparse
import csv
import json
import logging
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

from facemask import cli
from facemask.errors import InputError

logger = logging.getLogger("facemask")

WINDOW = "Face masks"
SMALL_FACE = 32  # px high in a picture read reduced: with a smaller one the whole is read
CSV_COLUMNS = ("image", "x1", "y1", "x2", "y2", "confidence", "label", "probability")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "-i", "--image", nargs="+", required=True, metavar="SOURCE", help="pictures: files, folders (with subfolders) or globs"
    )
    cli.add_detector_arguments(parser, tiles="auto")
    parser.add_argument("-o", "--output", type=Path, help="write annotated pictures: a file for one picture, else a folder")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write a JSON line a picture, with its faces")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV row a face")
    cli.add_show_argument(parser)
    return parser


def detect(args: argparse.Namespace) -> int:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.drawing import draw_detections, readable
    from facemask.files import check_outputs, text_output
    from facemask.media import REDUCED_SIDE, find_images, read_image, read_reduced, write_image
    from facemask.pipeline import enlarge
    from facemask.workers import AHEAD, FAR_AHEAD, share_cores, work_ahead

    paths = find_images(args.image)
    outputs = name_outputs(paths, args.output)
    check_outputs(filter(None, (*outputs.values(), args.jsonl, args.csv)), paths)
    show = cli.wants_window(args.show if args.show is not None or not args.output else False)
    workers, threads = share_cores() if len(paths) > 1 else (1, 0)
    detector = cli.load_detector(args, threads)

    def look(path: Path) -> tuple:
        """Return the picture (None if nobody wants to see it), its width and height, and what is found in it."""
        picture = read_reduced(path, max(REDUCED_SIDE, args.detector_size or 0))
        detections = detector.detect(picture.image, args.confidence)
        image = picture.image
        if picture.reduction > 1:
            small = any(detection.box[3] - detection.box[1] < SMALL_FACE for detection in detections)
            if small or args.output or show:
                image = read_image(path)
            if small:
                detections = detector.detect(image, args.confidence)
            else:
                detections = enlarge(detections, picture.reduction, picture.width, picture.height)
        return image if args.output or show else None, picture.width, picture.height, detections

    done, failed, labels, start, shown = 0, 0, Counter(), time.perf_counter(), 0.0
    with ExitStack() as stack:
        jsonl = stack.enter_context(text_output(args.jsonl)) if args.jsonl else None
        rows = csv.writer(stack.enter_context(text_output(args.csv, newline=""))) if args.csv else None
        stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
        looks = stack.enter_context(closing(work_ahead(look, paths, workers, AHEAD if args.output or show else FAR_AHEAD)))
        for path, looked in tqdm(looks, total=len(paths), unit="picture", disable=None if len(paths) > 1 else True):
            try:
                image, width, height, detections = looked.result()
            except InputError as error:
                if len(paths) == 1:
                    raise
                logger.warning("%s", error)
                failed += 1
                continue
            labels.update(detection.label for detection in detections)
            for line in describe(path, detections, readable):
                tqdm.write(line)
            if jsonl:
                faces = [asdict(detection) for detection in detections]
                print(json.dumps({"image": str(path), "width": width, "height": height, "faces": faces}), file=jsonl)
            if rows:
                if done == 0:
                    rows.writerow(CSV_COLUMNS)
                rows.writerows((path, *d.box, round(d.confidence, 4), d.label, round(d.probability, 4)) for d in detections)
            done += 1
            if args.output or show:
                annotated = draw_detections(image, detections)
                if args.output:
                    write_image(outputs[path], annotated)
                if show:
                    before = time.perf_counter()
                    show = show_picture(annotated)
                    shown += time.perf_counter() - before
    seconds = time.perf_counter() - start - shown
    for output in (args.output, args.jsonl, args.csv):
        if output:
            logger.info("saved to %s", output)
    counts = ", ".join(f"{readable(label)} {count}" for label, count in labels.most_common())
    logger.info(
        "%d of %d pictures, %d faces%s; %.2f s, %.0f ms a picture",
        done,
        len(paths),
        labels.total(),
        f" ({counts})" if counts else "",
        seconds,
        1000 * seconds / max(done, 1),
    )
    return cli.FAILED if failed else cli.DONE


def name_outputs(paths: list[Path], output: Path | None) -> dict[Path, Path]:
    """Say where each annotated picture goes: `output` itself for one picture, else a file of its name in that folder.

    Makes the folder. Raises InputError if it cannot, or if `output` names a single file for many pictures.
    """
    from facemask.files import make_folder
    from facemask.media import IMAGE_SUFFIXES

    if output is None:
        return {}
    if output.suffix and not output.is_dir():
        if output.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"{output}: cannot write this kind of picture; use .jpg or .png, or name a folder")
        if len(paths) > 1:
            raise InputError(f"{output}: is one file for {len(paths)} pictures; give -o a folder")
        return {paths[0]: output}
    make_folder(output)
    outputs, taken = {}, set()
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else ".jpg"
        name, number = path.stem + suffix, 2
        while name in taken:
            name, number = f"{path.stem}_{number}{suffix}", number + 1
        taken.add(name)
        outputs[path] = output / name
    return outputs


def describe(path: Path, detections: list, readable) -> list[str]:
    """Return what stdout says of a picture: a line a face."""
    if not detections:
        return [f"{path}: no face found"]
    return [
        f"{path}: {readable(d.label)} {d.probability:.1%}, box {' '.join(map(str, d.box))}, face confidence {d.confidence:.1%}"
        for d in detections
    ]


def show_picture(image) -> bool:
    """Show a picture until a key is pressed or the window closed; return False if q, Esc or closing ends the showing."""
    import cv2

    from facemask.media import window_is_open

    cv2.imshow(WINDOW, image)
    while (key := cv2.waitKey(50)) < 0:  # a short wait, so that Ctrl-C is heard
        if not window_is_open(WINDOW):
            return False
    return key & 0xFF not in (ord("q"), 27)


def main(argv: list[str] | None = None) -> int:
    return cli.run(detect, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
