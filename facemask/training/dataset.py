"""Read data sets: photos with annotated faces (Pascal VOC), and photos in one folder per class."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from facemask.errors import InputError
from facemask.io.find_images import IMAGE_SUFFIXES
from facemask.labels import BACKGROUND

IGNORE = "ignore"  # name of an object that is neither a face to learn nor a false positive, as WIDER FACE's tiny faces
MAX_ANNOTATION_BYTES = 1 << 24
MAX_COORDINATE = 1e6  # px: a box with a side farther out is a mistake
EXPECTED_LAYOUT = "expected one folder per class with photos in it, or images/ with Pascal VOC annotations/"


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo and its annotated faces: float boxes x1, y1, x2, y2 in pixels of the photo, as annotated."""

    path: Path
    boxes: np.ndarray  # (n, 4)
    labels: tuple[str, ...]  # n class names
    # (k, 4), marked difficult or to be ignored: not learnt from, not counted
    ignored: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))


@dataclass(frozen=True)
class ClassPhoto:
    """A photo in the folder of its class; where its face is, is not known."""

    path: Path
    label: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the class name of its one face."""
        return (self.label,)


Photo = AnnotatedPhoto | ClassPhoto
PhotoType = TypeVar("PhotoType", bound=Photo)


def read_dataset(folder: str | Path, names: Iterable[str] | None = None) -> list[Photo]:
    """List the photos of a data set, sorted by path; `names` keeps only annotated photos with these stems.

    Two layouts are known: one folder per class, and Pascal VOC (`images/` and `annotations/*.xml`, one object per face).
    Raises InputError if the folder has neither layout, or if a class folder has no photos.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {EXPECTED_LAYOUT}")
    if (folder / "annotations").is_dir():
        return [*read_annotated_photos(folder, names)]
    return [*read_class_folders(folder)]


def read_class_folders(folder: Path) -> list[ClassPhoto]:
    """List the photos of a folder with one folder per class, sorted by path. Raises InputError if a class has none."""
    photos = []
    for class_folder in sorted(folder.iterdir()):
        if not class_folder.is_dir() or class_folder.name.startswith((".", "_")):  # as .git, __MACOSX
            continue
        paths = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            deeper = any(path.suffix.lower() in IMAGE_SUFFIXES for path in class_folder.glob("*/*"))
            remedy = "its folders have some: give -d the one to train on" if deeper else "put some there, or remove it"
            raise InputError(f"{class_folder}: no photos in this class's folder; {remedy}")
        photos += [ClassPhoto(path, class_folder.name) for path in paths]
    if not photos:
        raise InputError(f"{folder}: no photos found in its subfolders; {EXPECTED_LAYOUT}")
    return photos


def read_annotated_photos(folder: str | Path, names: Iterable[str] | None = None) -> list[AnnotatedPhoto]:
    """List the photos of a Pascal VOC folder (`images/` and `annotations/*.xml`, one object per face), sorted by name.

    Photos without a face are included. `names` keeps only photos with these stems. Raises InputError if the folder has no
    photos (with these names), or if an annotation cannot be read.
    """
    folder = Path(folder)
    if not (folder / "annotations").is_dir():
        raise InputError(f"{folder}: no annotations/ in it; give a folder of images/ with Pascal VOC annotations/")
    wanted = None if names is None else set(names)
    images = {path.stem: path for path in (folder / "images").glob("*") if path.suffix.lower() in IMAGE_SUFFIXES}
    photos = []
    for annotation in sorted((folder / "annotations").glob("*.xml")):
        if annotation.stem not in images or (wanted is not None and annotation.stem not in wanted):
            continue
        photos.append(_read_annotation(annotation, images[annotation.stem]))
    if wanted and not photos:
        raise InputError(f"{folder}: has none of the {len(wanted)} photos listed; list names without suffix, one per line")
    if not any(photo.labels for photo in photos):
        raise InputError(f"{folder}: no annotated face found; images/ needs Pascal VOC annotations/ with one object per face")
    return photos


def _read_annotation(path: Path, image: Path) -> AnnotatedPhoto:
    """Return what a Pascal VOC annotation says of an image. Raises InputError if it is not an annotation."""
    boxes, labels, ignored = [], [], []
    try:
        if not path.is_file() or path.stat().st_size > MAX_ANNOTATION_BYTES:
            raise ValueError("too long" if path.is_file() else "not a regular file")
        for face in ElementTree.parse(path, forbid_dtd=True).getroot().iter("object"):
            box = [float(face.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            if not all(abs(side) < MAX_COORDINATE for side in box):
                raise ValueError(f"box {box}")
            label = face.findtext("name").strip()
            if not label.isprintable() or not label:
                raise ValueError(f"name {label!r}")
            if label == IGNORE or (face.findtext("difficult") or "").strip() == "1":
                ignored.append(box)
            else:
                boxes.append(box)
                labels.append(label)
    except DefusedXmlException as error:
        raise InputError(f"{path}: has a DTD or entities, which no annotation needs; remove them") from error
    except (ElementTree.ParseError, TypeError, ValueError, AttributeError, LookupError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a Pascal VOC annotation ({reason}); fix or remove it") from error
    return AnnotatedPhoto(image, _as_boxes(boxes), tuple(labels), _as_boxes(ignored))


def _as_boxes(boxes: Sequence) -> np.ndarray:
    return np.array(boxes, float).reshape(-1, 4)


def rename_labels(photos: Sequence[PhotoType], new_names: Mapping[str, str]) -> tuple[list[PhotoType], Counter[str]]:
    """Rename classes, as {"face": "without_mask"}; a class with the new name "" is dropped.

    Dropped boxes of annotated photos are ignored boxes then; photos in a class folder are left out. Returns the photos,
    and the number of faces dropped by their old class name. Raises InputError for a class that no face has.
    """
    counts = Counter(label for photo in photos for label in photo.labels)
    for name in new_names.keys() - counts.keys():
        raise InputError(f"--rename: no face has the label {name}; the data sets have {', '.join(sorted(counts))}")
    dropped = Counter({name: counts[name] for name, new in new_names.items() if not new})
    renamed: list[PhotoType] = []
    for photo in photos:
        labels = tuple(new_names.get(label, label) for label in photo.labels)
        if isinstance(photo, AnnotatedPhoto):
            kept = np.array([bool(label) for label in labels], bool)
            ignored = np.concatenate([photo.ignored, photo.boxes[~kept]])
            renamed.append(replace(photo, boxes=photo.boxes[kept], labels=tuple(filter(None, labels)), ignored=ignored))
        elif labels[0]:
            renamed.append(replace(photo, label=labels[0]))
    return renamed, dropped


def limit_faces(photos: Sequence[Photo], folder: Path, limit: int, seed: int) -> tuple[list[Photo], int]:
    """Keep at most `limit` of the faces in a folder, chosen at random by `seed`; photos elsewhere stay as they are.

    The other annotated faces are ignored boxes then; photos in a class folder are left out. Returns the photos and the
    number of faces that were in the folder. Raises InputError if the folder has no faces.
    """
    inside = [photo.path.is_relative_to(folder) for photo in photos]
    count = sum(len(photo.labels) for photo, is_inside in zip(photos, inside, strict=True) if is_inside)
    if not count:
        raise InputError(f"--limit: no face of the data sets is in {folder}; give a folder of -d, or one in it")
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[:limit]] = True
    kept_photos, first = [], 0
    for photo, is_inside in zip(photos, inside, strict=True):
        if not is_inside:
            kept_photos.append(photo)
            continue
        kept = chosen[first : first + len(photo.labels)]
        first += len(photo.labels)
        if isinstance(photo, AnnotatedPhoto):
            labels = tuple(label for label, is_kept in zip(photo.labels, kept, strict=True) if is_kept)
            ignored = np.concatenate([photo.ignored, photo.boxes[~kept]])
            kept_photos.append(replace(photo, boxes=photo.boxes[kept], labels=labels, ignored=ignored))
        elif kept.all():
            kept_photos.append(photo)
    return kept_photos, count


def class_names(photos: Iterable[Photo]) -> list[str]:
    """Return the labels in the order that the model's outputs will have: sorted.

    Raises InputError for fewer than two labels of faces, and for labels that differ only in case.
    """
    classes = sorted({label for photo in photos for label in photo.labels})
    for first, second in pairwise(sorted(classes, key=str.casefold)):
        if first.casefold() == second.casefold():
            raise InputError(f"dataset: the labels {first} and {second} differ only in case; rename one of them")
    if len(set(classes) - {BACKGROUND}) < 2:
        more = f", two classes or more besides {BACKGROUND}" if BACKGROUND in classes else ", two classes or more"
        raise InputError(f"dataset: found only one class ({', '.join(classes)}); {EXPECTED_LAYOUT}{more}")
    return classes
