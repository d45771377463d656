"""Choose the images of an archive that are worth labelling: those of the most uncertain labels, no two of them alike."""

import heapq
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

import numpy as np

from facemask.archive.parts import FORMATS, Output
from facemask.archive.sources import Found, Item, Unit, cut_units
from facemask.archive.tables import FACES
from facemask.archive.worker import RUN_FILE, UnitActor
from facemask.errors import InputError
from facemask.io.collect import THUMBNAIL, Collector, is_alike, thumbnail
from facemask.io.images import EncodedImage
from facemask.parallel import prefetch_map
from facemask.types import Detection

CANDIDATES = 20  # images that are kept in memory for each that is wanted, as most may be near-duplicates
ROUND = 2  # images that are compared at once for each that is wanted; the next round has twice as many
UNIT = 64  # images that an actor takes at once
REASON = "uncertain"

logger = logging.getLogger("facemask")


@dataclass(frozen=True)
class Candidate:
    """An image that may be chosen, and its faces."""

    name: str  # as in records
    faces: list[Detection]


def certainty(record: dict) -> float:
    """Return the probability, 0..1, that the most uncertain box of a record is a face with its label."""
    return min(face["probability"] * face["confidence"] for face in record["faces"])


def open_results(uri: str) -> Output:
    """Return the output of an archive of images that is done, or is being done.

    Raises InputError if it is not an output of this program.
    """
    output = Output(uri.rstrip("/"), "parquet")
    run = output.read_json(RUN_FILE)
    format = (run or {}).get("options", {}).get("format")
    if format not in FORMATS or not (output := Output(output.uri, format)).parts(FACES)[1]:
        raise InputError(f"{output.name()}: holds no results of images; give the -o of detect_mask_archive.py")
    return output


def most_uncertain(output: Output, count: int) -> list[Candidate]:
    """Return the images with the most uncertain faces, `CANDIDATES` times `count`, the most uncertain first.

    Raises InputError if there are no faces.
    """
    with_faces = (record for record in output.records(FACES) if record.get("faces"))
    records = heapq.nsmallest(CANDIDATES * count, with_faces, key=certainty)
    if not records:
        raise InputError(f"{output.name()}: no face was detected in these images; nothing to label")
    return [Candidate(record[FACES.name], [_detection(face) for face in record["faces"]]) for record in records]


def _detection(face: dict) -> Detection:
    x1, y1, x2, y2 = face["box"]
    return Detection((x1, y1, x2, y2), face["confidence"], face["label"], face["probability"], face["probabilities"])


def decode(item: Item, max_pixels: int, side: int | None = None) -> np.ndarray:
    """Return an image, uint8 (H, W, 3) BGR, its longest side at least `side` px if it is larger; None is whole.

    Raises InputError if it cannot be read.
    """
    if item.error is not None:
        raise InputError(item.error)
    if item.data is None:
        encoded = EncodedImage.read(item.path or item.name, max_pixels)
    else:
        encoded = EncodedImage.parse(item.name, item.data, max_pixels)
    return encoded.decode(1 if side is None else encoded.decode_scale(side))


class ThumbnailWorker(UnitActor):
    """An actor that makes a thumbnail of each image of units."""

    SIDE = 8 * THUMBNAIL  # px, of the longest side of what is decoded

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def process(self, unit: Unit) -> list[tuple[str, np.ndarray | str]]:
        """Return the name of each image with its thumbnail, or why it cannot be read."""
        thumbnails: list[tuple[str, np.ndarray | str]] = []
        for item, image in prefetch_map(partial(decode, max_pixels=self._max_pixels, side=self.SIDE), unit.read(), workers=1):
            try:
                thumbnails.append((item.name, thumbnail(image.result())))
            except InputError as error:
                thumbnails.append((item.name, str(error)))
        return thumbnails


Process = Callable[[Sequence[Unit]], Iterable[list[tuple[str, np.ndarray | str]]]]  # of units by ThumbnailWorkers


Find = Callable[[Iterable[str]], Found]  # `find_names`


def choose_unlike(
    candidates: Sequence[Candidate], count: int, find: Find, process: Process, collector: Collector
) -> list[Candidate]:
    """Return the first `count` candidates that are unlike all before them and those of a collector; warn if fewer."""
    chosen: list[Candidate] = []
    thumbnails: list[np.ndarray] = []
    errors: list[str] = []
    start, size = 0, ROUND * count
    while start < len(candidates) and len(chosen) < count:
        some = candidates[start : start + size]
        units = cut_units(find(candidate.name for candidate in some), UNIT, (), ())
        found = dict(pair for pairs in process(units) for pair in pairs)
        for candidate in some:
            made = found.get(candidate.name, f"{candidate.name}: not found in its file; was it changed?")
            if isinstance(made, str):
                errors.append(made)
            elif len(chosen) < count and collector.is_new(made) and not any(is_alike(made, other) for other in thumbnails):
                chosen.append(candidate)
                thumbnails.append(made)
        start, size = start + size, 2 * size
    if errors:
        logger.warning("%d images could not be read, as %s", len(errors), errors[0])
    if len(chosen) < count:
        logger.warning("only %d of the %d most uncertain images are unlike each other", len(chosen), len(candidates))
    return chosen


def collect(chosen: Sequence[Candidate], find: Find, collector: Collector, max_pixels: int) -> None:
    """Write the chosen images; warn if some are not. Raises OutputError if one cannot be written."""
    faces = {candidate.name: candidate.faces for candidate in chosen}
    alike = 0
    for unit in cut_units(find(faces), UNIT, (), ()):
        for item in unit.read():
            try:
                image = decode(item, max_pixels)
            except InputError as error:
                logger.warning("%s", error)
                continue
            alike += not collector.consider(image, faces[item.name], _file_name(item.name), REASON)
    if alike:
        logger.warning("%d images not copied: whole, they are like others in the folder", alike)


def _file_name(name: str) -> str:
    """Return the name of the file for an image, without suffix: that of a row of Parquet has its number."""
    path = PurePath(name)
    return path.name if "#" in path.suffix else path.stem
