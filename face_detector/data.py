"""Scenes to train the face detector on: photos scaled, cut, mirrored and put together, and their targets."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import keras
import numpy as np

from face_detector.network import STRIDE
from facemask.training.augment import degrade, relight

SMALLEST_FACE = 5  # px high in a scene: smaller ones are neither sought nor counted as false
LEAST_SEEN = 0.5  # part of a face that must be in the scene for it to be sought
SPREAD = 0.54 / 6  # of a target's bell, in faces: alpha and sigma of TTFNet (Liu et al., 2020)
LEAST_SPREAD = 0.35  # cells
BOX_PART = 0.3  # height of the bell from which a cell learns the box
TARGETS = 7  # maps: see `target_maps`
UNBOXED_PART = 3 / 8  # of the scenes, if there are such photos
GRID_SIDES = (0.2, 0.3, 0.3, 0.2)  # part of those scenes that are 1, 2, 3 and 4 photos wide and high
GRID_SCALES = (0.7, 1.6)  # longest side of their photos, against their place in the grid


@dataclass(frozen=True)
class Photo:
    """A photo to learn from."""

    image: np.ndarray  # uint8 (H, W, 3) RGB
    boxes: np.ndarray  # float32 (n, 4) x1, y1, x2, y2 px, its faces
    unannotated: np.ndarray  # float32 (k, 4), likely faces that are not among them: neither sought nor false
    source: str  # photos of one source share a scene, for their annotators agree on what a face's box is

    @staticmethod
    def source_of(name: str) -> str:
        """Return a photo's source by its name: the letters it begins with."""
        return re.match("[A-Za-z]*", name).group()


class Scenes(keras.utils.PyDataset):
    """Batches without end of scenes, float32 (n, size, size, 3) RGB 0..255, and their targets (n, size/4, size/4, 7).

    Every epoch begins a scene with each of `photos` once; in a part of them, `mosaic`, three other photos of its source
    share the scene. Of a batch's scenes UNBOXED_PART, rounded, are made of `unboxed` alone, small ones in a grid. What a batch
    holds follows from its number and the seed, whatever the number of workers.
    """

    num_batches = None  # without end

    def __init__(
        self,
        photos: Sequence[Photo],
        *,
        size: int,
        batch_size: int,
        mosaic: float,
        longest_side: tuple[int, int],
        seed: int,
        unboxed: Sequence[Photo] = (),
        workers: int = 1,
    ) -> None:
        """`longest_side`: least and most px to which one of `photos` is scaled, log-uniform between."""
        super().__init__(workers=workers, max_queue_size=12)
        self.photos, self.unboxed, self.size = photos, unboxed, size
        self.mosaic, self.longest_side, self.seed = mosaic, longest_side, seed
        self.of_unboxed = round(batch_size * UNBOXED_PART) if unboxed else 0
        self.of_photos = batch_size - self.of_unboxed
        self.batches_per_epoch = -(-len(photos) // self.of_photos)
        self.first = 0
        self._of_source = defaultdict(list)
        for number, photo in enumerate(photos):
            self._of_source[photo.source].append(number)

    def start(self, epoch: int) -> None:
        """Let batch 0 be the first of that epoch, counted from 0."""
        self.first = epoch * self.batches_per_epoch

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, batch = divmod(self.first + number, self.batches_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.photos))
        chosen = np.take(order, np.arange(batch * self.of_photos, (batch + 1) * self.of_photos), mode="wrap")
        rng = np.random.default_rng((self.seed, epoch, batch))
        scenes = [self.scene(first, rng) for first in chosen] + [self.grid(rng) for _ in range(self.of_unboxed)]
        images = np.stack([image for image, _, _ in scenes]).astype(np.float32)
        return images, np.stack([target_maps(faces, ignored, self.size // STRIDE) for _, faces, ignored in scenes])

    def scene(self, first: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Make a scene that begins with that photo: image, boxes of its faces, and boxes to ignore."""
        size = self.size
        photos, cells = [self.photos[first]], [(0, 0, size, size)]
        sides = np.exp(rng.uniform(*np.log(self.longest_side), 4))
        if rng.random() < self.mosaic:
            x, y = (rng.uniform(0.3, 0.7, 2) * size).astype(int).tolist()
            cells = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
            photos += [self.photos[number] for number in rng.choice(self._of_source[photos[0].source], 3)]
            sides = np.maximum(sides * 0.6, 160)
        return self._compose(photos, sides, cells, rng)

    def grid(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Make a scene of unboxed photos, 1 to 16 of them: image, boxes of their faces, and boxes to ignore."""
        count = 1 + rng.choice(len(GRID_SIDES), p=GRID_SIDES)
        place = self.size / count
        moved = (np.arange(1, count) + rng.uniform(-0.2, 0.2, (2, count - 1))) * place
        columns, rows = ([0, *line, self.size] for line in moved.astype(int).tolist())
        cells = [(left, top, right, bottom) for top, bottom in pairwise(rows) for left, right in pairwise(columns)]
        photos = [self.unboxed[number] for number in rng.integers(len(self.unboxed), size=len(cells))]
        sides = np.exp(rng.uniform(*np.log(GRID_SCALES), len(cells))) * place
        return self._compose(photos, sides, cells, rng)

    def _compose(
        self, photos: Sequence[Photo], sides: Sequence[float], cells: Sequence[tuple], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Put a photo, scaled to about that longest side, into each of the scene's cells, x1, y1, x2, y2."""
        image = np.empty((self.size, self.size, 3), np.uint8)
        image[:] = rng.integers(0, 256, 3)
        faces, ignored = [np.empty((0, 4), np.float32)], [np.empty((0, 4), np.float32)]
        for photo, side, cell in zip(photos, sides, cells, strict=False):
            piece, boxes, unannotated = _scaled(photo, side, rng)
            window = _place(piece, boxes, cell, rng)
            left, top, right, bottom = window
            to_scene = np.array([max(cell[0], cell[0] - left), max(cell[1], cell[1] - top)])
            left, top = max(left, 0), max(top, 0)
            cut = piece[top:bottom, left:right]
            image[to_scene[1] : to_scene[1] + cut.shape[0], to_scene[0] : to_scene[0] + cut.shape[1]] = cut
            shift = np.tile(to_scene - (left, top), 2)
            limits = (left, top, left + cut.shape[1], top + cut.shape[0])
            for found, seeks in ((boxes, True), (unannotated, False)):
                inside, whole_enough = _clip(found, limits)
                faces.append((inside + shift)[whole_enough & seeks])
                ignored.append((inside + shift)[~(whole_enough & seeks)])
        if rng.random() < 0.8:
            image = relight(image, rng)
        if rng.random() < 0.5:
            image = degrade(image, rng)
        return image, np.concatenate(faces), np.concatenate(ignored)


def _scaled(photo: Photo, longest_side: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale a photo to about that longest side, its sides' ratio a little off, and mirror it half of the time."""
    height, width = photo.image.shape[:2]
    scale, aspect = longest_side / max(height, width), np.exp(rng.normal(0, 0.05))
    size = max(32, round(width * scale * aspect)), max(32, round(height * scale / aspect))
    image = cv2.resize(photo.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    factors = np.tile(np.divide(size, (width, height)).astype(np.float32), 2)
    both = [photo.boxes * factors, photo.unannotated * factors]
    if rng.random() < 0.5:
        image = image[:, ::-1]
        both = [np.stack([size[0] - b[:, 2], b[:, 1], size[0] - b[:, 0], b[:, 3]], axis=1) for b in both]
    return image, *both


def _place(
    image: np.ndarray, boxes: np.ndarray, cell: tuple[int, int, int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Choose the window of `image` to be seen in a cell: where it is larger, mostly one with a face; else all of it.

    The window, x1, y1, x2, y2 in px of `image`, has the cell's size; an image that is smaller lies inside it.
    """
    size = np.array([cell[2] - cell[0], cell[3] - cell[1]])
    spare = np.array([image.shape[1], image.shape[0]]) - size
    low, high = np.minimum(spare, 0), np.maximum(spare, 0)
    if len(boxes) and rng.random() < 0.7:
        box = boxes[rng.integers(len(boxes))]
        start = rng.uniform(box[:2], box[2:]) - rng.uniform(0, size)
    else:
        start = rng.uniform(low, high)
    start = np.clip(start, low, high).astype(int)
    return *start.tolist(), *(start + size).tolist()


def _clip(boxes: np.ndarray, limits: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes (n, 4) to a window; returns those that are in it (k, 4), and which show enough of the face (k,) bool."""
    left, top, right, bottom = limits
    clipped = np.clip(boxes, (left, top, left, top), (right, bottom, right, bottom))
    sides = clipped[:, 2:] - clipped[:, :2]
    kept = (sides > 0).all(axis=1)
    seen = sides.prod(axis=1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    return clipped[kept], ((seen > LEAST_SEEN) & (sides[:, 1] >= SMALLEST_FACE))[kept]


def target_maps(boxes: np.ndarray, ignored: np.ndarray, cells: int) -> np.ndarray:
    """Return what the network should give: float32 (cells, cells, 7).

    Map 0 is a bell on each face, 1 at its centre's cell (CenterNet); 1 the weight of the score's loss, 0 in ignored
    boxes; 2 to 5 the box, x1, y1, x2, y2 in cells, near a face's centre, and 6 the weight of its loss, 1 a face.
    `boxes` and `ignored` are (n, 4) in px of the scene.
    """
    maps = np.zeros((cells, cells, TARGETS), np.float32)
    bells, weight = maps[..., 0], maps[..., 1]
    weight[:] = 1
    for box in ignored / STRIDE:
        weight[_covered(box)] = 0
    grid = np.arange(cells, dtype=np.float32)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for box in boxes[np.argsort(-areas)] / STRIDE:  # the smaller of two faces on one cell has it
        centre = np.minimum((box[:2] + box[2:]) / 2, cells - 1).astype(int)
        spread = np.maximum((box[2:] - box[:2]) * SPREAD, LEAST_SPREAD)
        across, down = np.exp(-((grid[:, None] - centre) ** 2) / (2 * spread**2)).T
        bell = down[:, None] * across
        np.maximum(bells, bell, out=bells)
        weight[_covered(box)] = np.maximum(weight[_covered(box)], bell[_covered(box)] > 0.01)
        near = bell > BOX_PART
        maps[near, 2:6] = box
        maps[near, 6] = bell[near] / bell[near].sum()
    return maps


def _covered(box: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of the cells that a box, in cells, covers."""
    x1, y1 = np.floor(box[:2]).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int)
    return slice(max(y1, 0), max(y2, 0)), slice(max(x1, 0), max(x2, 0))
