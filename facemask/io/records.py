"""What a run over images has done: records, CSV rows, and names of annotated images."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from facemask.errors import InputError
from facemask.io.find_images import IMAGE_SUFFIXES
from facemask.io.outputs import make_folder
from facemask.types import Detection

LONGEST_STEM = 220  # bytes of a name: file systems hold 255, with what is put behind it
CSV_COLUMNS = ("image", "x1", "y1", "x2", "y2", "confidence", "label", "probability")


def face_record(face: Detection) -> dict:
    """Return a face of an image as a dictionary for JSON."""
    record = asdict(face)
    del record["track"]
    return record


def tracked_face_record(face: Detection) -> dict:
    """Return a face of a video as a dictionary for JSON, numbers to four digits."""
    return {
        "track": face.track,
        "box": face.box,
        "confidence": round(face.confidence, 4),
        "label": face.label,
        "probability": round(face.probability, 4),
        "probabilities": {label: round(value, 4) for label, value in face.probabilities.items()},
    }


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
