"""Data sets in CSV: one row per photo with its label, or one row per face with its box."""

import csv
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from facemask.errors import InputError
from facemask.training.data_files import MAX_LIST_BYTES, PhotoFinder, read_text, report_links, split_of, walk_files
from facemask.training.dataset import ClassPhoto, Photo, annotated_photo, check_face
from facemask.training.written_files import PhotoWriter

# Names of columns, in lower case and without blanks, hyphens and underscores, as programs write them.
COLUMNS = {
    "name": ("filename", "file", "image", "imagename", "imagepath", "imagefile", "filepath", "path", "photo", "img"),
    "label": ("label", "class", "classname", "labelname", "category"),
    "x1": ("xmin", "x1", "left"), "y1": ("ymin", "y1", "top"), "x2": ("xmax", "x2", "right"), "y2": ("ymax", "y2", "bottom"),
    "split": ("split", "subset", "partition"),
}  # fmt: skip
BOX = ("x1", "y1", "x2", "y2")  # in pixels
ONE_HOT_NAME = "_classes.csv"  # of Roboflow's export of classes: after the photo's, one column per class, of 0 and 1
WRITTEN = ("filename", "class", "xmin", "ymin", "xmax", "ymax", "split")
DELIMITERS = ",;\t"

logger = logging.getLogger(__name__)


class CsvLabels:
    """CSV files with a row of names of columns: the photo, its label and, in pixels, the box of the face.

    In Roboflow's `_classes.csv` each class has a column; photos that are of no class or of several are left out.
    """

    name = "csv"
    title = "CSV"

    def recognises(self, folder: Path) -> bool:
        """Return whether the folder, or one in it, has a CSV file with columns for photos and labels."""
        return any(True for _ in _files(folder))

    def read(self, folder: Path, names: Iterable[str] | None = None) -> list[Photo]:
        """List the photos in the order of the rows. Raises InputError if a row is wrong."""
        wanted = None if names is None else set(names)
        finder, photos = PhotoFinder(folder), {}
        for file, columns, rows in _files(folder):
            for photo in _read_file(file, folder, columns, rows, finder):
                if photo.path in photos:
                    raise InputError(f"{file}: {photo.path} is in another file too; remove one of them")
                if wanted is None or isinstance(photo, ClassPhoto) or photo.path.stem in wanted:
                    photos[photo.path] = photo
        if wanted is None:
            finder.report_unnamed(photos)
        report_links(folder, photos)
        return [*photos.values()]

    def write(self, photos: Sequence[Photo], folder: Path) -> None:
        """Write images/ and labels.csv; the box of a photo by class is empty, and so is the class of one without faces."""
        writer = PhotoWriter(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(WRITTEN)
            for photo in photos:
                name = writer.copy(photo.path, Path("images")).name
                if isinstance(photo, ClassPhoto):
                    rows.writerow([name, photo.label, "", "", "", "", photo.split])
                    continue
                for label, box in photo.faces:
                    rows.writerow([name, label, *(round(float(side), 2) for side in box), photo.split])
                if not photo.faces:
                    rows.writerow([name, "", "", "", "", "", photo.split])


def _files(folder: Path) -> Iterator[tuple[Path, dict[str, int], Iterable[list[str]]]]:
    """Yield the CSV files with the columns that are needed, those columns by their meanings, and the rows after the first."""
    for path in walk_files(folder, ".csv"):
        lines = read_text(path, MAX_LIST_BYTES).splitlines()
        if not lines:
            continue
        delimiter = max(DELIMITERS, key=lines[0].count)
        try:
            header, *rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error as error:
            raise InputError(f"{path}: not a CSV file ({error}); fix or remove it") from error
        titles = ["".join(char for char in title.lower() if char.isalnum()) for title in header]
        columns = {
            meaning: next(titles.index(title) for title in known if title in titles)
            for meaning, known in COLUMNS.items()
            if any(title in titles for title in known)
        }
        if path.name == ONE_HOT_NAME and "name" in columns:
            yield path, {"name": 0, "label": 1}, _one_class(path, header, columns["name"], rows)
        elif {"name", "label"} <= columns.keys():
            yield path, columns, rows


def _one_class(path: Path, header: Sequence[str], name: int, rows: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yield photo and class of rows that have 0 or 1 for each class; nothing, and counted, for those not of exactly one class."""
    others = 0
    for number, row in enumerate(rows, 2):
        marks = {title.strip(): cell.strip() for title, cell in zip(header, row, strict=False) if title != header[name]}
        if row and (len(row) != len(header) or not set(marks.values()) <= {"0", "1"}):
            raise InputError(f"{path}: row {number} is not a label (it must have 0 or 1 for each class); fix or remove it")
        chosen = [title for title, mark in marks.items() if mark == "1"]
        others += bool(row) and len(chosen) != 1
        yield [row[name], *chosen] if len(chosen) == 1 else []
    if others:
        logger.warning("%s: %d photos are of no class, or of several: not used", path, others)


def _read_file(
    file: Path, folder: Path, columns: dict[str, int], rows: Iterable[Sequence[str]], finder: PhotoFinder
) -> list[Photo]:
    split_of_file = split_of(file.stem) or (split_of(file.parent.name) if file.parent != folder else "")
    places = [place for place in (file.parent, folder, file.parent / "images", folder / "images") if place.is_dir()]
    faces: dict[str, list] = {}
    splits: dict[str, str] = {}
    has_boxes = columns.keys() >= set(BOX)
    for number, row in enumerate(rows, 2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            name, label = row[columns["name"]].strip(), row[columns["label"]].strip()
            if not name:
                raise ValueError("no photo")
            split = split_of(row[columns["split"]]) if "split" in columns else split_of_file
            if splits.setdefault(name, split) != split:
                raise ValueError(f"{name} is in two splits")
            sides = [row[columns[side]].strip() for side in BOX] if has_boxes else []
            box = [float(side) for side in sides] if any(sides) else None
            found = faces.setdefault(name, [])
            if label:
                found.append((label, box, False))
                if box is not None:
                    check_face(label, box)
            if sum(box is None for _, box, _ in found) and len(found) > 1:
                raise ValueError(f"{name} has several labels, and not a box for each")
        except (ValueError, IndexError) as error:
            reason = "too few columns" if isinstance(error, IndexError) else error
            raise InputError(f"{file}: row {number} is not a label ({reason}); fix or remove it") from error
    photos: list[Photo] = []
    for name, found in faces.items():
        path = finder.find(name, places, file)
        if path is None:
            continue
        if found and found[0][1] is None:
            photos.append(ClassPhoto(path, found[0][0], splits[name]))
        else:
            photos.append(annotated_photo(path, found, splits[name]))
    finder.report_missing(file, len(faces))
    return photos
