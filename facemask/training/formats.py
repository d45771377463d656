"""The formats of data sets, one object each, and reading a folder in whichever it has."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from facemask.errors import InputError
from facemask.training.class_folders import ClassFolders
from facemask.training.coco import Coco
from facemask.training.csv_labels import CsvLabels
from facemask.training.data_files import SPLIT_FOLDERS, has_photos, subfolders, walk_files
from facemask.training.dataset import EXPECTED_LAYOUT, SPLITS, AnnotatedPhoto, ClassPhoto, Photo
from facemask.training.voc import PascalVoc
from facemask.training.yolo import Yolo

# Names of classes that are parts of a data set instead: its layout was not recognised, or was meant otherwise.
RESERVED_NAMES = {*SPLIT_FOLDERS, "images", "labels", "annotations"}

MAX_WRAPPERS = 3  # folders around a data set

logger = logging.getLogger(__name__)


class Format(Protocol):
    """A way to keep photos and what they show in a folder."""

    name: str  # of `convert --format`
    title: str  # in messages

    def recognises(self, folder: Path) -> bool:
        """Return whether a folder has this format. Raises InputError if a file that says so cannot be read."""

    def read(self, folder: Path, names: Iterable[str] | None = None) -> list[Photo]:
        """List the photos of a folder, annotated ones only with these stems. Raises InputError if something is wrong."""

    def write(self, photos: Sequence[Any], folder: Path) -> None:
        """Write photos into a new folder; formats of boxes take annotated photos alone."""


# The first that recognises a folder reads it. Class folders are the last, as any folder of folders looks like them.
FORMATS: tuple[Format, ...] = (Coco(), PascalVoc(), Yolo(), CsvLabels(), ClassFolders())


def find_format(folder: Path) -> Format | None:
    """Return the format of a folder, None if it has none. Raises InputError if it is not a folder."""
    if not folder.is_dir():
        reason = "not a folder; unpack it, and give the folder" if folder.is_file() else f"no such folder; {EXPECTED_LAYOUT}"
        raise InputError(f"{folder}: {reason}")
    return next((each for each in FORMATS if each.recognises(folder)), None)


def find_dataset(folder: Path) -> tuple[Path, Format | None]:
    """Return the folder of a data set and its format, None if it has none: of the folder itself, or of the only one in it.

    Archives are unpacked into folders within folders. Raises InputError if it is not a folder.
    """
    place, kind = folder, find_format(folder)
    for _ in range(MAX_WRAPPERS):
        inner = subfolders(place) if kind is None and not has_photos(place) else []
        if len(inner) != 1:
            break
        place = inner[0]
        kind = find_format(place)
    return (folder, None) if kind is None else (place, kind)


def read_dataset(folder: str | Path, names: Iterable[str] | None = None) -> list[Photo]:
    """List the photos of a data set in any of FORMATS; `names` keeps only annotated photos with these stems.

    Raises InputError if the folder has none of the formats, no photos or faces, or a class with the name of a split.
    """
    given = Path(folder)
    folder, kind = find_dataset(given)
    if folder != given:
        logger.info("%s: has one folder alone: %s is read", given, folder)
    for path in walk_files(folder, ".csv") if kind is None or kind.name == "folders" else ():
        logger.warning("%s: not used: it needs columns for the photo and its label, called as filename and class", path)
    wanted = None if names is None else set(names)
    photos = (kind or ClassFolders()).read(folder, wanted)
    annotated = [photo for photo in photos if isinstance(photo, AnnotatedPhoto)]
    if wanted and not photos:
        raise InputError(f"{folder}: has none of the {len(wanted)} photos listed; list names without suffix, one per line")
    if not any(photo.labels for photo in photos):
        title = kind.title if kind else ""
        raise InputError(f"{folder}: no annotated face found ({title}); {EXPECTED_LAYOUT}")
    for name in sorted({label for photo in photos for label in photo.labels}):
        if name.casefold() in RESERVED_NAMES:
            raise InputError(f"{folder}: a class is called {name}, as a part of a data set is; rename it, or check the layout")
    splits = Counter(photo.split for photo in photos)
    parts = [kind.title if kind else "", *(f"{split} {splits[split]}" for split in SPLITS if splits[split])]
    faces = f", {sum(len(photo.labels) for photo in annotated)} annotated faces" if annotated else ""
    logger.info("%s: %d photos%s (%s)", folder, len(photos), faces, "; ".join(parts))
    return photos


def read_annotated_photos(folder: str | Path, names: Iterable[str] | None = None) -> list[AnnotatedPhoto]:
    """List the photos of a data set whose format has boxes, those without faces too. Raises InputError as `read_dataset`."""
    photos = read_dataset(folder, names)
    if any(isinstance(photo, ClassPhoto) for photo in photos):
        raise InputError(f"{folder}: no boxes of faces in it; give photos annotated in Pascal VOC, YOLO, COCO or CSV")
    return [photo for photo in photos if isinstance(photo, AnnotatedPhoto)]


def read_class_photos(folder: str | Path) -> list[ClassPhoto]:
    """List the photos of a data set that has a class per photo. Raises InputError as `read_dataset`."""
    photos = read_dataset(folder)
    if any(isinstance(photo, AnnotatedPhoto) for photo in photos):
        raise InputError(f"{folder}: annotated photos; give photos by class: one folder per class, or CSV")
    return [photo for photo in photos if isinstance(photo, ClassPhoto)]
