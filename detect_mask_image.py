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
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

from facemask.cli import run as cli
from facemask.errors import InputError, OutputError

logger = logging.getLogger("facemask")

WINDOW = "Face masks"
SMALL_FACE = 32  # px high in a picture read reduced: with a smaller one the whole is read
LONGEST_STEM = 220  # bytes of a name: file systems hold 255, with what is put behind it
CSV_COLUMNS = ("image", "x1", "y1", "x2", "y2", "confidence", "label", "probability")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "-i", "--image", nargs="+", required=True, metavar="SOURCE", help="pictures: files, folders (with subfolders) or globs"
    )
    cli.add_detector_arguments(parser, tiles="auto")
    parser.add_argument("-o", "--output", type=Path, help="write annotated pictures: a file for one picture, else a folder")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write a JSON line a picture, with its faces")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the --jsonl FILE of a run with the same options that was interrupted, or add new pictures to it",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV row a face")
    cli.add_show_argument(parser)
    return parser


def detect(args: argparse.Namespace) -> int:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.annotate import draw_detections, readable
    from facemask.detector import enlarge
    from facemask.io.images import REDUCED_SIDE, EncodedPicture, find_images, is_large, write_image
    from facemask.io.outputs import check_outputs, partial_path, resumable_json_lines, text_output
    from facemask.parallel import AHEAD, FAR_AHEAD, share_cores, work_ahead

    paths = leave_out_results(find_images(args.image), args.output)
    show = cli.wants_window(args.show if args.show is not None or not args.output else False)

    def look(path: Path) -> tuple:
        """Return the picture (None if nobody wants to see it), its width and height, and what is found in it."""
        picture = EncodedPicture.read(path, args.max_pixels)
        reduction = picture.reduction(max(REDUCED_SIDE, args.detector_size or 0))
        image = picture.decode(reduction)
        detections = detector.detect(image, args.confidence)
        if reduction > 1:
            small = any(detection.box[3] - detection.box[1] < SMALL_FACE for detection in detections)
            if small or args.output or show:
                image = picture.decode()
            if small:
                detections = detector.detect(image, args.confidence)
            else:
                detections = enlarge(detections, reduction, picture.width, picture.height)
        return image if args.output or show else None, picture.width, picture.height, detections

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
        workers, threads = share_cores() if len(remaining) > 1 else (1, 0)
        detector = cli.load_detector(args, threads)
        stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
        ahead = AHEAD if args.output or show else FAR_AHEAD
        looks = stack.enter_context(closing(work_ahead(look, remaining, workers, ahead, alone=is_large)))
        for path, looked in tqdm(looks, total=len(remaining), unit="picture", disable=None if len(remaining) > 1 else True):
            try:
                image, width, height, detections = looked.result()
            except InputError as error:
                if len(paths) == 1:
                    raise
                logger.warning("%s", error)
                failed += 1
                continue
            if len(detections) == detector.faces.max_faces:
                logger.warning("%s: of its faces the surest %d are given; --max-faces gives more", path, len(detections))
            record = {"image": str(path), "width": width, "height": height, "faces": [asdict(face) for face in detections]}
            labels.update(detection.label for detection in detections)
            for line in describe(path, detections, readable):
                tqdm.write(cli.one_line(line))
            if args.output or show:
                annotated = draw_detections(image, detections)
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
                    show = show_picture(annotated)
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
    counts = ", ".join(f"{readable(label)} {count}" for label, count in labels.most_common())
    logger.info(
        "%d of %d pictures, %d faces%s; %.2f s, %.0f ms a picture",
        done,
        len(remaining),
        labels.total(),
        f" ({counts})" if counts else "",
        seconds,
        1000 * seconds / max(done, 1),
    )
    return cli.FAILED if failed else cli.DONE


def leave_out_results(paths: list[Path], output: Path | None) -> list[Path]:
    """Return the pictures that do not lie in the output folder, where earlier results are, unless all do."""
    if output is None or not output.is_dir():
        return paths
    folder = os.path.join(os.path.abspath(output), "")
    return [path for path in paths if not os.path.abspath(path).startswith(folder)] or paths


def check_records(records: Iterable[dict], jsonl: Path) -> dict[str, str | None]:
    """Return what each picture of a JSONL file was annotated as, if it was. Raises InputError if a record is not one of ours."""
    annotated = {}
    for record in records:
        try:
            os.fsencode(record["image"])
            for face in record["faces"]:
                os.fsencode(face["label"])
                x1, y1, x2, y2 = face["box"]
                numbers = x1, y1, x2, y2, face["confidence"], face["probability"]
                if not all(isinstance(number, int | float) for number in numbers):
                    raise TypeError
            if not isinstance(record.get("annotated"), str | None):
                raise TypeError
            annotated[record["image"]] = record.get("annotated")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{jsonl}: has lines that this script did not write; leave out --resume, or name another file"
            ) from error
    return annotated


def write_rows(rows, records: Iterable[dict], is_first: bool) -> None:
    """Write the faces of pictures to a csv.writer, and before the first picture what the columns are."""
    for record in records:
        if is_first:
            rows.writerow(CSV_COLUMNS)
            is_first = False
        for face in record["faces"]:
            confidence, probability = round(face["confidence"], 4), round(face["probability"], 4)
            rows.writerow((record["image"], *face["box"], confidence, face["label"], probability))


def name_outputs(paths: list[Path], output: Path | None, taken: set[str]) -> dict[Path, Path]:
    """Say where each annotated picture goes: `output` itself for one picture, else a file of its name in that folder.

    Absolute names that are `taken` are left to those who have them. Makes the folder. Raises InputError if it cannot, or
    if `output` names a single file for many pictures.
    """
    from facemask.io.outputs import IMAGE_SUFFIXES, make_folder

    if output is None:
        return {}
    if output.suffix and not output.is_dir():
        if output.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"{output}: cannot write this kind of picture; use .jpg or .png, or name a folder")
        if len(paths) > 1:
            raise InputError(f"{output}: is one file for {len(paths)} pictures; give -o a folder")
        if paths and os.path.abspath(output) in taken:
            raise InputError(f"{output}: shows another picture already; give -o a folder")
        return dict.fromkeys(paths, output)
    make_folder(output)
    outputs, numbers = {}, Counter()
    for path in paths:
        stem = os.fsdecode(os.fsencode(path.stem)[:LONGEST_STEM])
        suffix = path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else ".jpg"
        while True:
            numbers[stem, suffix] += 1
            number = numbers[stem, suffix]
            outputs[path] = output / (f"{stem}_{number}{suffix}" if number > 1 else f"{stem}{suffix}")
            if os.path.abspath(outputs[path]) not in taken:
                break
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

    from facemask.io.images import window_is_open

    cv2.imshow(WINDOW, image)
    while (key := cv2.waitKey(50)) < 0:  # a short wait, so that Ctrl-C is heard
        if not window_is_open(WINDOW):
            return False
    return key & 0xFF not in (ord("q"), 27)


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and not args.jsonl:
        parser.error("--resume needs --jsonl FILE, which tells what is done")
    return cli.run(detect, args)


if __name__ == "__main__":
    sys.exit(main())
