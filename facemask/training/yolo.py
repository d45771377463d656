"""Data sets in YOLO's format: one text file per photo, one line per face, and the names of classes in data.yaml."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import yaml

from facemask.errors import InputError
from facemask.io.annotations import yolo_lines
from facemask.io.images import image_size
from facemask.training.data_files import (
    MAX_LIST_BYTES,
    has_photos,
    is_inside,
    list_photos,
    read_text,
    report_links,
    report_others,
    split_folders,
    split_of,
    subfolder,
    subfolders,
)
from facemask.training.dataset import IGNORE, AnnotatedPhoto, Photo, annotated_photo, check_face
from facemask.training.written_files import PhotoWriter

NAME_LISTS = ("classes.txt", "obj.names", "labels.txt", "predefined_classes.txt")  # one class per line, where there is no YAML
SPLIT_KEYS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}  # of data.yaml

MAX_YAML_BYTES = 1 << 20
MAX_OUTSIDE = 2.0  # of the photo's sides, from its middle: a number farther out is one in pixels

logger = logging.getLogger(__name__)


class Yolo:
    """`images/` and `labels/`, also within or below folders of splits, or a label beside each photo; and data.yaml.

    A line is a class number and a box, centre and size as parts of the photo's sides; a polygon counts as the box around it.
    """

    name = "yolo"
    title = "YOLO"

    def recognises(self, folder: Path) -> bool:
        """Return whether the folder has a YAML file or a list with names of classes, or a folder `labels`."""
        if any("names" in _read_yaml(path) for path in _yaml_files(folder)) or (folder / "obj.names").is_file():
            return True
        return any(subfolder(place, "labels") and subfolder(place, "images") for place in (folder, *subfolders(folder)))

    def read(self, folder: Path, names: Iterable[str] | None = None) -> list[Photo]:
        """List the photos, sorted by path; a photo without a label file has no faces.

        Raises InputError if the names of classes are missing, or if a label or path is wrong.
        """
        wanted = None if names is None else set(names)
        classes, places, listed = _read_names(folder)
        photos: list[Photo] = []
        others: Counter[str] = Counter()
        unlabelled = unreadable = unlisted = 0
        places = {**{path.parent: "" for path in listed}, **places} if places else _photo_folders(folder)
        for place, split_of_place in places.items():
            for path in list_photos(place, others):
                split = listed.get(path, split_of_place)
                if wanted is not None and path.stem not in wanted:
                    continue
                if listed and not split:
                    unlisted += 1
                    continue
                label = _label_file(path, folder)
                unlabelled += not label.is_file()
                try:
                    photos.append(_read_labels(path, label, classes, split))
                except _UnreadablePhoto as error:
                    logger.warning("skipped: %s", error)
                    unreadable += 1
        if unlabelled:
            logger.info("%s: %d photos have no label file: they count as photos without faces", folder, unlabelled)
        if unlisted:
            logger.warning("%s: %d photos are not in the lists of its YAML file: not used", folder, unlisted)
        report_others(folder, others)
        if unreadable:
            logger.warning("%s: %d photos could not be read: not used", folder, unreadable)
        report_links(folder, [photo.path for photo in photos])
        return photos

    def write(self, photos: Sequence[AnnotatedPhoto], folder: Path) -> None:
        """Write images/ and labels/, with folders of splits in them if the photos have splits, and data.yaml."""
        classes = sorted({label for photo in photos for label in photo.labels})
        classes += [IGNORE] * any(len(photo.ignored) for photo in photos)
        writer = PhotoWriter(folder)
        (folder / "labels").mkdir(parents=True)
        for photo in photos:
            path = writer.copy(photo.path, Path("images", _folder_name(photo.split)))
            text = yolo_lines(*image_size(path), photo.faces, classes)
            labels = folder / "labels" / _folder_name(photo.split)
            labels.mkdir(exist_ok=True)
            (labels / f"{path.stem}.txt").write_text(text, encoding="utf-8")
        used = {photo.split for photo in photos}
        parts = {key: f"images/{_folder_name(split)}".rstrip("/") for key, split in SPLIT_KEYS.items() if split in used}
        parts.pop("valid", None)
        if not used - {""}:
            parts = {"train": "images", "val": "images"}  # ultralytics wants both
        content = {**parts, "nc": len(classes), "names": classes}
        (folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


class _UnreadablePhoto(InputError):
    """A photo whose size cannot be read."""


def _folder_name(split: str) -> str:
    return {"validation": "val"}.get(split, split)


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".yaml", ".yml") and path.is_file())


def _read_yaml(path: Path) -> dict:
    """Return the mapping in a YAML file, empty if it holds something else. Raises InputError if it is not YAML."""
    text = read_text(path, MAX_YAML_BYTES)
    try:
        content = yaml.safe_load(text) if "names" in text else {}
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not a YAML file that only holds values ({_first_line(error)}); fix or remove it") from error
    return content if isinstance(content, dict) else {}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_names(folder: Path) -> tuple[list[str], dict[Path, str], dict[Path, str]]:
    """Return the names of classes by number, and the splits by folder and by photo that the YAML file gives, if it does."""
    for path in _yaml_files(folder):
        content = _read_yaml(path)
        names = content.get("names")
        if names is None:
            continue
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[number] for number in range(len(names))]
        if not (isinstance(names, list) and names and all(isinstance(name, str) or type(name) is int for name in names)):
            raise InputError(
                f"{path}: names must list the classes, as [with_mask, without_mask], yes and no in quotes; correct it"
            )
        return [str(name).strip() for name in names], *_read_splits(path, content)
    places = [place for part in (folder, *split_folders(folder)) for place in (part, subfolder(part, "labels")) if place]
    lists = [place / name for name in NAME_LISTS for place in places if (place / name).is_file()]
    found = [[line.strip() for line in read_text(path).splitlines() if line.strip()] for path in lists]
    if found and found != found[:1] * len(found):
        other = next(path for path, names in zip(lists, found, strict=True) if names != found[0])
        raise InputError(f"{other}: lists other classes than {lists[0]}; remove one of them")
    if found:
        return found[0], {}, {}
    raise InputError(f"{folder}: YOLO labels without the names of the classes; add a data.yaml or classes.txt that lists them")


def class_list(folder: Path) -> list[str]:
    """Return the names of classes by number, of a YAML file or list. Raises InputError if there is none."""
    return _read_names(folder)[0]


def _read_splits(path: Path, content: dict) -> tuple[dict[Path, str], dict[Path, str]]:
    """Return the folders of photos that data.yaml names, and their splits; and the photos that it lists, and theirs.

    A folder or photo of several splits has none.
    """
    folder = path.parent
    splits: dict[Path, str] = {}
    listed: dict[Path, str] = {}
    for key, split in SPLIT_KEYS.items():
        entries = content.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str) and entry.endswith(".txt"):
                for photo in _read_list(folder, content.get("path"), entry):
                    listed[photo] = split if listed.get(photo, split) == split else ""
                continue
            place = _resolve(folder, content.get("path"), entry, path)
            if place is None and split == "test":
                continue  # many files name a test split that was never made
            if place is None:
                raise InputError(f"{path}: {key}: {entry} is not a folder of photos in this data set; correct it")
            splits[place] = split if splits.get(place, split) == split else ""
    return splits, listed


def _read_list(folder: Path, base: object, entry: str) -> list[Path]:
    """Return the photos that a list names, one per line; none if there is no list: then the names of folders say the split."""
    file = _find_below(folder, base, entry, os.path.isfile)
    lines = read_text(file, MAX_LIST_BYTES).splitlines() if file else []
    named = [line.strip() for line in lines if line.strip()]
    photos = [photo for name in named if (photo := _find_below(folder, base, name, os.path.isfile))]
    if len(photos) < len(named):
        logger.warning("%s: %d of %d photos are not there: not used", file, len(named) - len(photos), len(named))
    return photos


def _resolve(folder: Path, base: object, entry: object, source: Path) -> Path | None:
    """Return the folder of photos that `entry` names."""
    if not isinstance(entry, str):
        raise InputError(f"{source}: {entry!r} is not the name of a folder; correct it")
    place = _find_below(folder, base, entry, os.path.isdir)
    if place is None:
        return None
    return place / "images" if not has_photos(place) and (place / "images").is_dir() else place


def _find_below(folder: Path, base: object, name: str, exists: Callable[[Path], bool]) -> Path | None:
    """Return what a name in data.yaml, relative to `base`, stands for in the data set; None if that is nothing.

    Of a path that leads out of the data set, the longest end that there is counts.
    """
    parts = [part for part in Path(name.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    places = [folder.joinpath(*parts[number:]) for number in range(len(parts))]
    if isinstance(base, str) and not Path(base).is_absolute() and ".." not in Path(base).parts:
        places.insert(0, folder / base / Path(*parts))
    # os.path's functions, unlike pathlib's, take a name that is too long
    return next((place for place in places if exists(place) and is_inside(place, folder)), None)


def _photo_folders(folder: Path) -> dict[Path, str]:
    """Return the folders of photos, and their splits, where no YAML file names them."""
    places = {}
    for place in (folder, *subfolders(folder)):
        for inner in (place, *subfolders(place)):
            if has_photos(inner):
                places[inner] = next(filter(None, map(split_of, inner.relative_to(folder).parts)), "")
    return places


def _label_file(photo: Path, folder: Path) -> Path:
    """Return where the labels of a photo are: `labels` in place of the last folder `images` of its path, or beside it."""
    parts = list(photo.relative_to(folder).with_suffix(".txt").parts)
    for number in reversed(range(len(parts) - 1)):
        if parts[number].casefold() == "images":
            labels = subfolder(folder.joinpath(*parts[:number]), "labels")
            return Path(labels or folder.joinpath(*parts[:number], "labels"), *parts[number + 1 :])
    return photo.with_suffix(".txt")


def _read_labels(photo: Path, label: Path, classes: Sequence[str], split: str) -> AnnotatedPhoto:
    text = read_text(label) if label.is_file() else ""
    if not text.strip():
        return annotated_photo(photo, [], split)
    try:
        width, height = image_size(photo)
    except InputError as error:
        raise _UnreadablePhoto(str(error)) from error
    faces = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            first, *values = map(float, line.split())
            if len(values) < 4 or first != int(first) or first < 0:
                raise ValueError("a class number and a box are needed")
            if first >= len(classes):
                raise ValueError(f"class {first:.0f} of {len(classes)}")
            if not all(abs(value - 0.5) < MAX_OUTSIDE for value in values):
                raise ValueError(f"{values[:4]} are no parts of the photo's sides, from 0 to 1")
            faces.append((classes[int(first)], _box(values, width, height), False))
            check_face(*faces[-1][:2])
        except (ValueError, OverflowError) as error:
            raise InputError(f"{label}: line {number} is not a YOLO label ({error}); fix or remove it") from error
    return annotated_photo(photo, faces, split)


def _box(values: Sequence[float], width: int, height: int) -> list[float]:
    """Return the box, x1, y1, x2, y2 in pixels, of a label's numbers: a box, maybe with a confidence, or a polygon."""
    if len(values) <= 5:
        x, y, w, h = values[:4]
        sides = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    else:
        xs, ys = values[0 : len(values) // 2 * 2 : 2], values[1::2]
        sides = [min(xs), min(ys), max(xs), max(ys)]
    return [side * scale for side, scale in zip(sides, (width, height, width, height), strict=True)]
