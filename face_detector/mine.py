#!/usr/bin/env python3
"""Cut out what a face detector takes for faces where there are none: the class `background` of the mask classifier.

  python -m face_detector.mine -d negatives wider -f a.onnx -o background
  python train_mask_detector.py -d dataset photos background …

In an annotated folder (Pascal VOC, YOLO, COCO or CSV) that is what touches no annotated face; photos in other folders must show
no face at all. Writes images/ and annotations/ (Pascal VOC XML).
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from facemask.cli import options as cli
from facemask.cli.run import DONE, run
from facemask.errors import InputError
from facemask.labels import BACKGROUND
from facemask.types import Face

logger = logging.getLogger("facemask")

CONFIDENCE = 0.05  # from which a detection is cut out: below the confidences that anyone asks for
PER_PHOTO = 3  # cut out of one photo at most, the most confident ones
CONTEXT = 0.5  # of a box's longer side, kept around it, for the augmentation to move the box
SAME_OBJECT = 0.5  # intersection over union of two crops from which they show the same
MIN_SIDE = 10  # px of a box
MAX_SIDE = 320  # px of the longest side of what is written
XML = (
    "<annotation><object><name>{name}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>"
    "</object></annotation>\n"
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m face_detector.mine", description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("-d", "--dataset", type=Path, nargs="+", required=True, metavar="FOLDER", help="photos")
    parser.add_argument("-f", "--face", type=Path, nargs="+", required=True, metavar="FILE", help="face detectors, .onnx")
    parser.add_argument(
        "--complete", type=Path, nargs="+", default=(), metavar="FOLDER",
        help="those of the annotated folders in which every face is annotated; in the others, what CenterFace finds is left out "
        "(default: none)",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="that of face_detector.train (default: none)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder to write; must not exist")
    return parser


def mine(args: argparse.Namespace) -> int:
    partial = args.output.with_name(f"{args.output.name}.partial")  # until it is whole
    for folder in (args.output, partial):
        if folder.exists():
            raise InputError(f"{folder}: exists already; remove it, or give another -o")
    photos = dict(photo for folder in args.dataset for photo in list_candidates(folder, folder in args.complete, args.cache))
    for part in ("images", "annotations"):
        (partial / part).mkdir(parents=True)
    try:
        crops, images = write_crops(photos, args.face, partial)
        if not images:
            raise InputError("-d: none of these photos can be read; name others")
        partial.rename(args.output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # after an error or Ctrl-C; else it has its name
    logger.info("%d crops of %d photo%s, in %s", crops, images, "s" * (images != 1), args.output)
    return DONE


def write_crops(photos: Mapping[Path, list], files: Sequence[Path], output: Path) -> tuple[int, int]:
    """Write what the detectors in `files` find besides the boxes of each photo; return the number of crops and of photos."""
    from face_detector.sources import read_all
    from facemask.boxes import iou_matrix
    from facemask.io.images import write_image
    from facemask.models.center_face import CenterFaceDetector

    detectors = [CenterFaceDetector.load(path, tiles=True) for path in files]
    crops = images = 0
    for path, image in read_all(list(photos), "mining"):
        found = [face for detector in detectors for face in detector.detect(image, CONFIDENCE)]
        found = [face for face in found if min(face.box[2] - face.box[0], face.box[3] - face.box[1]) >= MIN_SIDE]
        chosen: list[Face] = []
        for face in sorted(found, key=lambda face: -face.confidence):
            is_new = (iou_matrix([face.box], [other.box for other in chosen]) < SAME_OBJECT).all()
            if len(chosen) < PER_PHOTO and is_new and not touches(face.box, photos[path]):
                chosen.append(face)
        images += 1
        for face in chosen:
            cut, box = cut_out(image, face.box)
            name = f"{path.parent.name if path.parent.name != 'images' else path.parent.parent.name}_{path.stem}_{crops}"
            write_image(output / "images" / f"{name}.jpg", cut)
            (output / "annotations" / f"{name}.xml").write_text(XML.format(*box, name=BACKGROUND))
            crops += 1
    return crops, images


def list_candidates(folder: Path, complete: bool, cache: Path | None) -> list[tuple[Path, list]]:
    """Return (path, boxes that are or may be faces) of a folder's photos."""
    from face_detector.sources import cache_path, cached, find_unannotated, list_photos
    from facemask.training.formats import find_dataset, read_annotated_photos

    _, kind = find_dataset(folder)
    if kind is None or kind.name == "folders":
        return [(path, []) for path in list_photos(folder)]
    photos = read_annotated_photos(folder)
    if complete:
        unannotated = {}
    elif cache:
        unannotated = cached(cache_path(cache, "unannotated", folder), lambda: find_unannotated(photos))
    else:
        unannotated = find_unannotated(photos)
    return [
        (photo.path, [*photo.boxes.tolist(), *photo.ignored.tolist(), *unannotated.get(str(photo.path), ())]) for photo in photos
    ]


def touches(box: tuple, others: list) -> bool:
    """Return whether a box shares any pixel with one of the others."""
    x1, y1, x2, y2 = box
    return any(left < x2 and right > x1 and top < y2 and bottom > y1 for left, top, right, bottom in others)


def cut_out(image, box: tuple):
    """Return the part of an image around a box, MAX_SIDE px at most, and the box in it."""
    import cv2
    import numpy as np

    x1, y1, x2, y2 = box
    around = round(CONTEXT * max(x2 - x1, y2 - y1))
    left, top = max(x1 - around, 0), max(y1 - around, 0)
    cut = image[top : y2 + around, left : x2 + around]
    scale = min(1.0, MAX_SIDE / max(cut.shape[:2]))
    if scale < 1:
        cut = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cut, np.rint(np.array([x1 - left, y1 - top, x2 - left, y2 - top]) * scale).astype(int).tolist()


def main(argv: list[str] | None = None) -> int:
    return run(mine, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
