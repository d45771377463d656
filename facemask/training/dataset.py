"""Read photos of faces by class, and cut the faces out."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from facemask.boxes import square_around
from facemask.errors import InputError
from facemask.io.find_images import IMAGE_SUFFIXES
from facemask.io.images import MAX_PIXELS, is_large, read_image
from facemask.models.face_detectors import FaceDetector
from facemask.parallel import prefetch_map
from facemask.types import Face

CONTEXT = 0.5  # of the face's side, kept around each face for augmentation to move and turn the crop in
MIN_FACE = 8  # px, longer side: annotated faces below it show nothing to learn from
LARGEST_ANNOTATION = 1 << 24  # bytes
FARTHEST = 1e6  # px: no box's side lies so far out
EXPECTED_LAYOUT = "expected a folder per class with photos in it, or images/ with Pascal VOC annotations/"


@dataclass(frozen=True)
class Sample:
    """A view of a face to learn from: `box` (x1, y1, x2, y2 in pixels) of a photo, or the whole photo where it is None."""

    path: Path
    label: str
    box: tuple[float, float, float, float] | None
    face: int = 0  # number within the photo: the views of one face share it


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo with its true faces: boxes (n, 4) x1, y1, x2, y2 in pixels, as annotated, and their n labels."""

    path: Path
    boxes: np.ndarray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class FacePatch:
    """A face cut out with some context: uint8 (H, W, 3) RGB, and the face's box in the patch's pixels."""

    image: np.ndarray
    box: tuple[float, float, float, float]


def read_dataset(folder: str | Path, names: Iterable[str] | None = None) -> list[Sample]:
    """List the faces of a dataset folder, sorted by path; `names` keeps only annotated photos of those stems.

    Two layouts are known: a folder per class, and Pascal VOC (`images/` and `annotations/*.xml`, one object a face).
    Raises InputError where the folder is neither, or a class has no photos.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {EXPECTED_LAYOUT}")
    if (folder / "annotations").is_dir():
        return [
            Sample(photo.path, label, tuple(box), face)
            for photo in read_annotated_photos(folder, names)
            for face, (label, box) in enumerate(zip(photo.labels, photo.boxes.tolist(), strict=True))
            if max(box[2] - box[0], box[3] - box[1]) >= MIN_FACE
        ]
    samples = []
    for class_folder in sorted(folder.iterdir()):
        if not class_folder.is_dir() or class_folder.name.startswith((".", "_")):  # as .git, __MACOSX
            continue
        photos = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not photos:
            deeper = any(path.suffix.lower() in IMAGE_SUFFIXES for path in class_folder.glob("*/*"))
            remedy = "its folders have some: give -d the one to train on" if deeper else "put some there, or remove it"
            raise InputError(f"{class_folder}: no photos in this class's folder; {remedy}")
        samples += [Sample(path, class_folder.name, None) for path in photos]
    if not samples:
        raise InputError(f"{folder}: no photos found in its subfolders; {EXPECTED_LAYOUT}")
    return samples


def read_annotated_photos(folder: str | Path, names: Iterable[str] | None = None) -> list[AnnotatedPhoto]:
    """List the photos of a Pascal VOC folder (`images/` and `annotations/*.xml`, one object a face), sorted by name.

    Photos without a face are among them. `names` keeps only photos of those stems. Raises InputError where the folder
    has none (of those names), or an annotation is broken.
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
        photos.append(AnnotatedPhoto(images[annotation.stem], *_read_annotation(annotation)))
    if wanted and not photos:
        raise InputError(f"{folder}: none of the {len(wanted)} photos listed is there; list names without suffix, a line each")
    if not any(photo.labels for photo in photos):
        raise InputError(f"{folder}: no annotated face found; images/ needs Pascal VOC annotations/ with an object a face")
    return photos


def _read_annotation(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the boxes (n, 4) and labels of a Pascal VOC annotation. Raises InputError if it is none."""
    boxes, labels = [], []
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_ANNOTATION:
            raise ValueError("no ordinary file" if not path.is_file() else "too long")
        for face in ElementTree.parse(path, forbid_dtd=True).getroot().iter("object"):
            box = [float(face.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            if not all(abs(side) < FARTHEST for side in box):
                raise ValueError(f"box {box}")
            label = face.findtext("name").strip()
            if not label.isprintable() or not label:
                raise ValueError(f"name {label!r}")
            boxes.append(box)
            labels.append(label)
    except DefusedXmlException as error:
        raise InputError(f"{path}: has a DTD or entities, which no annotation needs; remove them") from error
    except (ElementTree.ParseError, TypeError, ValueError, AttributeError, LookupError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a Pascal VOC annotation ({reason}); mend or remove it") from error
    return np.array(boxes, float).reshape(-1, 4), tuple(labels)


def add_single_faces(
    samples: Sequence[Sample], detector: FaceDetector, progress=iter, workers: int = 1, max_pixels: int = MAX_PIXELS
) -> list[Sample]:
    """Return the samples, and once more, cut out, the face of each whole photo in which the detector finds just one.

    So a network learns faces as detection will show them to it. `progress` wraps the list of samples (tqdm); so many
    `workers` look at a photo each.
    """

    def find(sample: Sample) -> list[Face]:
        try:
            return detector.detect(read_image(sample.path, max_pixels))
        except InputError:
            return []  # load_patches says so

    whole = [sample for sample in samples if sample.box is None]
    looks = prefetch_map(find, progress(whole), workers, exclusive=lambda sample: is_large(sample.path))
    found = [(sample, faces.result()) for sample, faces in looks]
    return [*samples, *(Sample(sample.path, sample.label, faces[0].box) for sample, faces in found if len(faces) == 1)]


def class_names(samples: Iterable[Sample]) -> list[str]:
    """Return the labels in the order that the model's outputs will have: sorted.

    Raises InputError for fewer than two, and for some that differ in case alone.
    """
    classes = sorted({sample.label for sample in samples})
    for first, second in pairwise(sorted(classes, key=str.casefold)):
        if first.casefold() == second.casefold():
            raise InputError(f"dataset: the labels {first} and {second} differ in case alone; rename one of them")
    if len(classes) < 2:
        raise InputError(f"dataset: found one class only ({', '.join(classes)}); {EXPECTED_LAYOUT}, two classes or more")
    return classes


def load_patches(
    samples: Sequence[Sample], size: int, progress=iter, max_pixels: int = MAX_PIXELS
) -> tuple[dict[int, FacePatch], list[str]]:
    """Decode every photo once and cut its faces out, with context, at up to 1.5 x `size` px a face.

    Returns the patches by index into `samples`, and a message for each photo that cannot be read. `progress` wraps the
    list of photos (tqdm).
    """
    by_path = defaultdict(list)
    for index, sample in enumerate(samples):
        by_path[sample.path].append(index)
    patches, unreadable = {}, []
    for path in progress(list(by_path)):
        try:
            image = read_image(path, max_pixels)
        except InputError as error:
            unreadable.append(str(error))
            continue
        for index in by_path[path]:
            patch = _cut_patch(image, samples[index].box, size)
            if patch is not None:
                patches[index] = patch
    return patches, unreadable


def _cut_patch(image: np.ndarray, box: tuple | None, size: int) -> FacePatch | None:
    height, width = image.shape[:2]
    box = np.array(box or (0, 0, width, height), float)
    if not (max(box[0], 0) < min(box[2], width) and max(box[1], 0) < min(box[3], height)):
        return None
    x1, y1, x2, y2 = np.round(square_around(box, CONTEXT)).astype(int)
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    patch = cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_BGR2RGB)
    box -= [x1, y1, x1, y1]
    scale = 1.5 * size / max(box[2] - box[0], box[3] - box[1])
    if scale < 1:
        new_size = max(1, round(patch.shape[1] * scale)), max(1, round(patch.shape[0] * scale))
        patch, box = cv2.resize(patch, new_size, interpolation=cv2.INTER_AREA), box * scale
    return FacePatch(patch, tuple(box))
