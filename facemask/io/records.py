"""The records of a run over images: JSON lines, a CSV file, and the names of annotated images."""

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from facemask.errors import InputError
from facemask.io.downloads import without_password
from facemask.io.find_images import WRITTEN_SUFFIXES
from facemask.io.json_lines import JsonLines, resumable_json_lines
from facemask.io.outputs import Place, check_outputs, fold_name, make_folder, partial_path, set_aside, text_output
from facemask.labels import UNSURE
from facemask.types import Detection, FileResult

MAX_STEM = 220  # bytes of a name: file systems allow 255, with number and suffix
CSV_COLUMNS = ("image", "x1", "y1", "x2", "y2", "confidence", "label", "probability", "unsure")
DIGITS = 4  # of numbers in records

logger = logging.getLogger(__name__)


def face_record(face: Detection) -> dict:
    """Return a face of an image as a dictionary for JSON, numbers rounded to `DIGITS`."""
    return {
        "box": face.box,
        "confidence": round(face.confidence, DIGITS),
        "label": face.label,
        "probability": round(face.probability, DIGITS),
        "unsure": face.is_unsure,
        "probabilities": {label: round(value, DIGITS) for label, value in face.probabilities.items()},
    }


def tracked_face_record(face: Detection) -> dict:
    """Return a face of a video as a dictionary for JSON: as `face_record` does, after its track and, if there are, its zone."""
    return {"track": face.track} | ({} if face.zone == "" else {"zone": face.zone}) | face_record(face)


def image_record(name: str | Path, result: FileResult) -> dict:
    """Return an image and its faces as a dictionary for JSON: a line of JSONL, in whichever way the run is done."""
    faces = [face_record(face) for face in result.detections]
    return {"image": str(name), "width": result.width, "height": result.height, "faces": faces}


@dataclass(frozen=True)
class RunRecords:
    """The records of a run over images, as `run_records` opens them."""

    remaining: list[Path]  # the images that have no line yet
    done_before: int  # images that have one, of an earlier run
    outputs: dict[Path, Path]  # where the annotated image of each remaining image goes; empty if none is written
    lines: JsonLines | None  # None if no records are written

    def write(self, name: str | Path, result: FileResult, annotated: Path | None) -> None:
        """Add the faces of an image, and the name of its annotated image, if it was written: what has a line is done."""
        if self.lines:
            self.lines.write(image_record(name, result) | ({"annotated": str(annotated)} if annotated else {}))


@contextmanager
def run_records(
    paths: Sequence[Path],
    jsonl: Path | None,
    table: Path | None,
    output: Place | None,
    resume: bool = False,
    urls: Mapping[Path, str] = MappingProxyType({}),
    others: Sequence[Path] = (),
) -> Iterator[RunRecords]:
    """Yield the records of a run over `paths`; at its end they are in `jsonl` and, made from it, in `table`, a CSV file.

    With `resume` they continue those of an earlier run. `output` is that of `name_outputs`; `urls` are those of
    `find_urls`; `others` are further files that the run writes. Raises InputError if an output cannot be written, another run
    is writing it, or the lines to resume are another program's.
    """
    files = [path for path in (jsonl, table, *others) if path]
    check_outputs(files, paths)
    with _run_lines(jsonl, table, resume) as lines:
        earlier = read_annotated(lines.records(), lines.name) if lines and resume else {}
        remaining = [path for path in paths if image_name(path, urls) not in earlier]
        output = output and output.for_images(len(paths))
        outputs = name_outputs(remaining, output, {os.path.abspath(name) for name in earlier.values() if name})
        check_outputs((*outputs.values(), *files), paths)
        yield RunRecords(remaining, len(paths) - len(remaining), outputs, lines)
        if lines and table:
            write_csv(table, lines.records())


def _run_lines(jsonl: Path | None, table: Path | None, resume: bool) -> AbstractContextManager[JsonLines | None]:
    if jsonl:
        return resumable_json_lines(jsonl, resume)
    return _table_lines(table) if table else nullcontext()


@contextmanager
def _table_lines(table: Path) -> Iterator[JsonLines]:
    """Yield the JSON lines from which a CSV file is made, which go when the block ends without an error."""
    path = partial_path(table.with_name(f"{table.name}.jsonl"))
    with JsonLines(path, table, set_aside) as lines:
        try:
            yield lines
        except BaseException:
            lines.close()
            if lines.count:
                logger.warning("not finished: the results so far are in %s, as JSON lines", path)
            else:
                path.unlink()
            raise
        lines.close()
        path.unlink()


def image_name(path: Path, urls: Mapping[Path, str]) -> str:
    """Return the name of an image in records and messages: its path, or its URL without a password."""
    return without_password(urls[path]) if path in urls else str(path)


def skip_results(paths: list[Path], output: Path | None) -> list[Path]:
    """Return the images that are not in the output folder, which holds earlier results, unless all are."""
    if output is None or not output.is_dir():
        return paths
    folder = os.path.join(os.path.abspath(output), "")
    return [path for path in paths if not os.path.abspath(path).startswith(folder)] or paths


def read_annotated(records: Iterable[dict], jsonl: str | Path) -> dict[str, str | None]:
    """Return by image of a JSONL file the name of its annotated image, None without one.

    Raises InputError if a record is not one that `RunRecords` writes.
    """
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
            raise InputError(f"{jsonl}: has lines that this script did not write; omit --resume, or name another file") from error
    return annotated


def write_csv(table: Path, records: Iterable[dict]) -> None:
    """Write a CSV file with one row per face of the records."""
    with text_output(table, newline="") as file:
        write_rows(file, records)


def write_rows(file: TextIO, records: Iterable[dict]) -> None:
    """Write the names of the columns, and one row per face of the records; `file` must keep the ends of lines as they are."""
    rows = csv.writer(file)
    rows.writerow(CSV_COLUMNS)
    for record in records:
        for face in record["faces"]:
            unsure = face.get("unsure", face["probability"] < UNSURE)  # version 1 wrote no such field
            numbers = face["confidence"], face["label"], face["probability"], str(unsure).lower()
            rows.writerow((record["image"], *face["box"], *numbers))


def name_outputs(paths: list[Path], output: Place | None, taken: set[str]) -> dict[Path, Path]:
    """Return where each annotated image goes: `output` itself for one image, else a file of its name in that folder.

    The absolute names in `taken` are other images'. No two names differ only in case or in the form of their accents, which
    are one name to some file systems. Makes the folder. Raises InputError if it cannot be made, or if `output` names one file
    for several images.
    """
    if output is None:
        return {}
    place = output.path
    if not output.is_folder:
        if place.suffix.lower() not in WRITTEN_SUFFIXES:
            raise InputError(f"{place}: this image format cannot be written; use .jpg or .png, or name a folder: {place}/")
        if len(paths) > 1:
            raise InputError(f"{place}: is one file for {len(paths)} images; give -o a folder")
        if paths and os.path.abspath(place) in taken:
            raise InputError(f"{place}: shows another image already; give -o a folder")
        return dict.fromkeys(paths, place)
    make_folder(place)
    outputs: dict[Path, Path] = {}
    numbers: Counter[str] = Counter()
    folded = {fold_name(name) for name in taken}
    for path in paths:
        stem = _cut(path.stem)
        suffix = path.suffix if path.suffix.lower() in WRITTEN_SUFFIXES else ".jpg"
        key = fold_name(stem + suffix)
        while True:
            numbers[key] += 1
            number = numbers[key]
            outputs[path] = place / (f"{stem}_{number}{suffix}" if number > 1 else f"{stem}{suffix}")
            name = fold_name(os.path.abspath(outputs[path]))
            if name not in folded:
                folded.add(name)
                break
    return outputs


def _cut(stem: str) -> str:
    """Return as many characters of a name as take at most MAX_STEM bytes."""
    stem = stem[:MAX_STEM]
    while len(os.fsencode(stem)) > MAX_STEM:
        stem = stem[:-1]
    return stem
