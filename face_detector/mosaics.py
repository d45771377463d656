"""Mosaics to train the face detector on: photos scaled, turned, mirrored, cut and put together, and their targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise

import cv2
import keras
import numpy as np

from face_detector.network import STRIDE
from facemask.training.augment import degrade, relight

MIN_FACE = 5  # px high in a mosaic: smaller faces are ignored
MIN_VISIBLE = 0.5  # part of a face that must be in the mosaic for it to be a positive; less is ignored
GAUSSIAN_SIGMA = 0.54 / 6  # of a target's gaussian, in faces: alpha and sigma of TTFNet (Liu et al., 2020)
MIN_SIGMA = 0.35  # cells
BOX_HEIGHT = 0.3  # of the gaussian, from which a cell learns the box
TARGET_MAPS = 7  # `target_maps`
TURNED = 0.2  # part of the photos that are turned by 90, 180 or 270 degrees
TILTED, TILT = 0.4, 18.0  # part of the photos that are tilted, and by how many degrees (standard deviation, 45 at most)
HARD = 0.5  # part of the photos without faces that are drawn among those with false positives
NEGATIVE_CELL = 0.2  # part of the other cells of a mosaic that show a photo without faces
EMPTY = np.empty((0, 4), np.float32)


@dataclass(frozen=True)
class Photo:
    """A photo to learn from. The file is decoded each time, as thousands of decoded photos do not fit into memory."""

    encoded: bytes  # the file
    size: tuple[int, int]  # width, height px
    boxes: np.ndarray = field(default_factory=EMPTY.copy)  # float32 (n, 4) x1, y1, x2, y2 px: its faces
    ignored: np.ndarray = field(default_factory=EMPTY.copy)  # float32 (k, 4): neither positive nor negative
    false_positives: np.ndarray = field(default_factory=EMPTY.copy)  # float32 (m, 4): of an earlier network, shown often


@dataclass(frozen=True)
class Source:
    """Photos whose annotators agree on what a face's box is; a mosaic shows photos of one source."""

    photos: Sequence[Photo]
    weight: float  # part of the mosaics, relative to the other sources
    sides: tuple[float, float]  # px, smallest and largest longest side of a photo that fills a mosaic, log-uniform between
    grids: tuple[float, ...] = (0.6, 0.4)  # part of the mosaics that are 1, 2, ... photos wide and high

    @cached_property
    def hard(self) -> list[Photo]:
        """Return the photos in which an earlier network found false positives."""
        return [photo for photo in self.photos if len(photo.false_positives)]

    def draw(self, rng: np.random.Generator) -> Photo:
        """Draw a photo; HARD of the time one with false positives, if there are some."""
        photos = self.hard if self.hard and rng.random() < HARD else self.photos
        return photos[int(rng.integers(len(photos)))]


class MosaicDataset(keras.utils.PyDataset):
    """Batches without end: mosaics, float32 (n, size, size, 3) RGB 0..255, and their targets (n, size/4, size/4, 7).

    What a batch holds depends on its number and the seed alone, whatever the number of workers.
    """

    num_batches = None  # without end

    def __init__(
        self, sources: Sequence[Source], negatives: Sequence[Photo], *, size: int, batch_size: int, seed: int, workers: int = 1
    ) -> None:
        """`negatives`: photos without faces, that share mosaics with the photos of every source."""
        super().__init__(workers=workers, max_queue_size=12)
        self.sources, self.size, self.batch_size, self.seed = sources, size, batch_size, seed
        self.negatives = Source(negatives, 0.0, (1.0, 1.0))
        self.weights = np.array([source.weight for source in sources], float)
        self.weights /= self.weights.sum()
        self.first = 0

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, self.first + number))
        chosen = rng.choice(len(self.sources), self.batch_size, p=self.weights)
        mosaics = [self.mosaic(self.sources[index], rng) for index in chosen]
        images = np.stack([image for image, _, _ in mosaics]).astype(np.float32)
        return images, np.stack([target_maps(faces, ignored, self.size // STRIDE) for _, faces, ignored in mosaics])

    def mosaic(self, source: Source, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a mosaic, uint8 (size, size, 3) RGB, the boxes of its faces (n, 4) and boxes to ignore (k, 4)."""
        size = self.size
        count = 1 + rng.choice(len(source.grids), p=source.grids)
        jitter = rng.uniform(-0.2, 0.2, (2, count - 1)) * (2 if count == 2 else 1)
        columns, rows = ([0, *line, size] for line in ((np.arange(1, count) + jitter) * size / count).astype(int).tolist())
        cells = [(left, top, right, bottom) for top, bottom in pairwise(rows) for left, right in pairwise(columns)]
        image = np.empty((size, size, 3), np.uint8)
        image[:] = rng.integers(0, 256, 3)
        faces, ignored = [EMPTY], [EMPTY]
        for position, cell in enumerate(cells):
            is_negative = position > 0 and rng.random() < NEGATIVE_CELL
            photo = (self.negatives if is_negative and self.negatives.photos else source).draw(rng)
            side = np.exp(rng.uniform(*np.log(source.sides))) / count
            piece, boxes = transform(photo, side, rng)
            window = place(piece, boxes, cell, rng)
            found, uncertain = paste(image, cell, piece, window, boxes)
            faces.append(found)
            ignored.append(uncertain)
        if rng.random() < 0.8:
            image = relight(image, rng)
        if rng.random() < 0.5:
            image = degrade(image, rng)
        return image, np.concatenate(faces), np.concatenate(ignored)


@dataclass(frozen=True)
class Boxes:
    """Boxes (n, 4) of a photo, in px of what was made of it."""

    faces: np.ndarray
    ignored: np.ndarray
    false_positives: np.ndarray

    def map(self, function) -> "Boxes":
        return Boxes(*map(function, (self.faces, self.ignored, self.false_positives)))


def transform(photo: Photo, side: float, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
    """Scale a photo to about that longest side in px, its aspect a little off; mirror, turn and tilt it at random."""
    width, height = photo.size
    scale, aspect = side / max(width, height), np.exp(rng.normal(0, 0.05))
    reduced = cv2.IMREAD_REDUCED_COLOR_2 if scale <= 0.5 else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(photo.encoded, np.uint8), reduced | cv2.IMREAD_IGNORE_ORIENTATION)
    size = max(32, round(width * scale * aspect)), max(32, round(height * scale / aspect))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    factors = np.tile(np.divide(size, (width, height)).astype(np.float32), 2)
    boxes = Boxes(photo.boxes, photo.ignored, photo.false_positives).map(lambda array: array * factors)
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes = boxes.map(lambda array: np.column_stack([size[0] - array[:, 2], array[:, 1], size[0] - array[:, 0], array[:, 3]]))
    for _ in range(rng.integers(1, 4) if rng.random() < TURNED else 0):
        boxes = boxes.map(partial(turn_left, width=image.shape[1]))
        image = np.rot90(image)
    if rng.random() < TILTED:
        image, boxes = tilt(image, boxes, float(np.clip(rng.normal(0, TILT), -45, 45)), rng)
    return image, boxes


def turn_left(boxes: np.ndarray, width: int) -> np.ndarray:
    """Return boxes (n, 4) of an image of that width in px after it was turned to the left by 90 degrees."""
    return np.column_stack([boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]])


def tilt(image: np.ndarray, boxes: Boxes, degrees: float, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
    """Turn an image about its centre, its size kept. A face's box becomes that of the ellipse in its box, turned."""
    height, width = image.shape[:2]
    centre = np.array([width, height]) / 2
    matrix = cv2.getRotationMatrix2D(tuple((centre - 0.5).tolist()), degrees, 1.0)
    fill = rng.integers(0, 256, 3).tolist()
    image = cv2.warpAffine(np.ascontiguousarray(image), matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=fill)
    cos, sin = matrix[0, 0], matrix[0, 1]

    def turn(array: np.ndarray) -> np.ndarray:
        middle, half = (array[:, :2] + array[:, 2:]) / 2 - centre, (array[:, 2:] - array[:, :2]) / 2
        middle = middle @ np.array([[cos, -sin], [sin, cos]]) + centre
        half = np.hypot(half * abs(cos), half[:, ::-1] * abs(sin))
        return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)

    return image, boxes.map(turn)


def place(image: np.ndarray, boxes: Boxes, cell: tuple, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Choose the window of `image` that a cell shows: where the image is larger, mostly one with a face or false positive.

    The window, x1, y1, x2, y2 in px of `image`, has the cell's size; an image that is smaller lies inside it.
    """
    size = np.array([cell[2] - cell[0], cell[3] - cell[1]])
    spare = np.array([image.shape[1], image.shape[0]]) - size
    low, high = np.minimum(spare, 0), np.maximum(spare, 0)
    targets = np.concatenate([boxes.faces, boxes.false_positives])
    if len(targets) and rng.random() < 0.7:
        box = targets[rng.integers(len(targets))]
        start = rng.uniform(box[:2], box[2:]) - rng.uniform(0, size)
    else:
        start = rng.uniform(low, high)
    start = np.clip(start, low, high).astype(int)
    return *start.tolist(), *(start + size).tolist()


def paste(mosaic: np.ndarray, cell: tuple, image: np.ndarray, window: tuple, boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Show that window of `image` in a cell of `mosaic`; return the boxes of its faces there, and those to ignore."""
    left, top, right, bottom = window
    x, y = max(cell[0], cell[0] - left), max(cell[1], cell[1] - top)
    left, top = max(left, 0), max(top, 0)
    cut = image[top:bottom, left:right]
    mosaic[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    shift = np.tile((x - left, y - top), 2)
    limits = (left, top, left + cut.shape[1], top + cut.shape[0])
    faces, visible = clip_to_window(boxes.faces, limits)
    ignored, _ = clip_to_window(boxes.ignored, limits)
    faces, ignored = faces + shift, ignored + shift
    return faces[visible].astype(np.float32), np.concatenate([faces[~visible], ignored]).astype(np.float32)


def clip_to_window(boxes: np.ndarray, limits: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes (n, 4) to a window; return those in it (k, 4), and which show enough of the face (k,) bool."""
    left, top, right, bottom = limits
    clipped = np.clip(boxes, (left, top, left, top), (right, bottom, right, bottom))
    sides = clipped[:, 2:] - clipped[:, :2]
    kept = (sides > 0).all(axis=1)
    visible = sides.prod(axis=1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    return clipped[kept], ((visible > MIN_VISIBLE) & (sides[:, 1] >= MIN_FACE))[kept]


def target_maps(boxes: np.ndarray, ignored: np.ndarray, cells: int) -> np.ndarray:
    """Return what the network should give: float32 (cells, cells, 7).

    Map 0 is the heatmap, a gaussian on each face, 1 at its centre's cell (CenterNet); 1 the weight of the score's loss, 0
    in ignored boxes; 2 to 5 the box, x1, y1, x2, y2 in cells, near a face's centre, and 6 the weight of its loss, which sums
    to 1 over a face. `boxes` and `ignored` are (n, 4) in px of the mosaic.
    """
    maps = np.zeros((cells, cells, TARGET_MAPS), np.float32)
    heatmap, weight = maps[..., 0], maps[..., 1]
    weight[:] = 1
    for box in ignored / STRIDE:
        weight[_covered(box)] = 0
    grid = np.arange(cells, dtype=np.float32)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for box in boxes[np.argsort(-areas)] / STRIDE:  # the smaller of two faces on one cell has it
        centre = np.clip((box[:2] + box[2:]) / 2, 0, cells - 1).astype(int)
        sigma = np.maximum((box[2:] - box[:2]) * GAUSSIAN_SIGMA, MIN_SIGMA)
        across, down = np.exp(-((grid[:, None] - centre) ** 2) / (2 * sigma**2)).T
        gaussian = down[:, None] * across
        np.maximum(heatmap, gaussian, out=heatmap)
        weight[_covered(box)] = np.maximum(weight[_covered(box)], gaussian[_covered(box)] > 0.01)
        near = gaussian > BOX_HEIGHT
        maps[near, 2:6] = box
        maps[near, 6] = gaussian[near] / gaussian[near].sum()
    return maps


def _covered(box: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of the cells that a box, in cells, covers."""
    x1, y1 = np.floor(box[:2]).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int)
    return slice(max(y1, 0), max(y2, 0)), slice(max(x1, 0), max(x2, 0))
