"""Cut the faces of a data set out of its photos: one record per crop."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import cv2
import numpy as np

from facemask.boxes import square_around
from facemask.errors import InputError
from facemask.io.images import MAX_PIXELS, is_large, read_image
from facemask.models.face_detectors import FaceDetector
from facemask.parallel import prefetch_map
from facemask.training.dataset import AnnotatedPhoto, Photo

CONTEXT = 0.5  # of the face's longer side, kept around each face so that augmentation can shift and rotate the crop
MIN_FACE = 8  # px, longer side: smaller annotated faces show nothing to learn from
PATCH_SCALE = 1.5  # longer side of a face in its patch, at most, in input sizes: detail for a crop that augmentation enlarges


@dataclass(frozen=True)
class FacePatch:
    """A face cut out with some context: uint8 (H, W, 3) RGB, and the box of the face, x1, y1, x2, y2 in pixels of the patch."""

    image: np.ndarray
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Crop:
    """A face to learn from. One face may have two crops, which share their `face_id`."""

    patch: FacePatch
    label: str  # class name
    path: Path  # of the photo
    face_id: int
    split: str = ""  # of the photo: train, validation or test as its data set says; "" if it does not


@dataclass
class LoadedCrops:
    """The crops of a data set in the order of its photos, and what was skipped."""

    crops: list[Crop] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # one message per photo
    small: int = 0  # faces below MIN_FACE
    outside: int = 0  # boxes that are empty or outside their photo


def class_indices(crops: Sequence[Crop], classes: Sequence[str]) -> np.ndarray:
    """Return the labels of crops as indices into `classes`, int (n,)."""
    return np.array([classes.index(crop.label) for crop in crops], int)


def load_crops(
    photos: Sequence[Photo],
    detector: FaceDetector,
    size: int,
    *,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> LoadedCrops:
    """Decode each photo once and cut its faces out, with context, at up to PATCH_SCALE x `size` px per face.

    An annotated photo gives one crop per box. A photo of a class folder gives the whole photo; where `detector` finds
    exactly one face in it, that face is a second crop of the same `face_id`, so that the network learns faces as
    detection will show them. `progress` wraps the photos (tqdm); `workers` is the number of threads.
    """
    loaded = LoadedCrops()
    photos = [photo for photo in photos if photo.labels]
    first_ids = accumulate((len(photo.labels) for photo in photos), initial=0)
    numbered = zip(progress(photos), first_ids, strict=False)  # there is one number more

    def cut(item: tuple[Photo, int]) -> LoadedCrops:
        photo, first_id = item
        return _cut_photo(photo, first_id, read_image(photo.path, max_pixels), detector, size)

    for _, future in prefetch_map(cut, numbered, workers, exclusive=lambda item: is_large(item[0].path)):
        try:
            part = future.result()
        except InputError as error:
            loaded.unreadable.append(str(error))
            continue
        loaded.crops += part.crops
        loaded.small += part.small
        loaded.outside += part.outside
    return loaded


def _cut_photo(photo: Photo, first_id: int, image: np.ndarray, detector: FaceDetector, size: int) -> LoadedCrops:
    part = LoadedCrops()
    if isinstance(photo, AnnotatedPhoto):
        faces = list(zip(photo.labels, photo.boxes.tolist(), range(first_id, first_id + len(photo.labels)), strict=True))
        large = [face for face in faces if max(face[1][2] - face[1][0], face[1][3] - face[1][1]) >= MIN_FACE]
        part.small = len(faces) - len(large)
        faces = large
    else:
        detected = detector.detect(image)
        boxes = [(0, 0, image.shape[1], image.shape[0]), *(face.box for face in detected if len(detected) == 1)]
        faces = [(photo.label, box, first_id) for box in boxes]
    for label, box, face_id in faces:
        patch = cut_patch(image, box, size)
        if patch is None:
            part.outside += 1
        else:
            part.crops.append(Crop(patch, label, photo.path, face_id, photo.split))
    return part


def cut_patch(image: np.ndarray, box: Sequence[float], size: int) -> FacePatch | None:
    """Cut a face out of `image`, uint8 (H, W, 3) BGR; None if `box` is empty or outside it."""
    height, width = image.shape[:2]
    box = np.array(box, float)
    if not (max(box[0], 0) < min(box[2], width) and max(box[1], 0) < min(box[3], height)):
        return None
    x1, y1, x2, y2 = np.round(np.array(square_around(box.tolist(), CONTEXT))).astype(int)
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    patch = cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_BGR2RGB)
    box -= [x1, y1, x1, y1]
    scale = PATCH_SCALE * size / max(box[2] - box[0], box[3] - box[1])
    if scale < 1:
        new_size = max(1, round(patch.shape[1] * scale)), max(1, round(patch.shape[0] * scale))
        patch, box = cv2.resize(patch, new_size, interpolation=cv2.INTER_AREA), box * scale
    return FacePatch(patch, tuple(box.tolist()))
