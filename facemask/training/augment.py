"""Change training crops the way real photos, cameras and face detectors do."""

import cv2
import numpy as np

from facemask.boxes import square_around
from facemask.training.crops import FacePatch

MIN_RESOLUTION = 12  # px: crops are downscaled to between this and the input size, as distant faces are
TILT = 15.0  # degrees, standard deviation of the rotation: most heads are tilted less than 30 degrees
# Share of the crops that are turned by 90, 180 or 270 degrees: people lie down, and photos lose their EXIF orientation. Most
# crops stay upright, as most faces are.
TURNED = 0.25


def augment(patch: FacePatch, size: int, margin: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random view of a face, uint8 (size, size, 3) RGB.

    Changes follow the order in which a photo is made: pose (quarter turn, box jitter, rotation, mirroring), light and
    colour, an object in front, then the camera (distance, blur, noise, JPEG). `margin` is kept around the face, as a part
    of its longer side, on each side. The same state of `rng` gives the same view.
    """
    if rng.random() < TURNED:
        patch = turn(patch, int(rng.integers(1, 4)))
    resolution = _random_resolution(patch, size, rng)
    view = _warp(patch, resolution, margin, rng)
    view = relight(view, rng)
    if rng.random() < 0.15:
        view = _occlude(view, rng)
    view = degrade(view, rng)
    if resolution != size:
        enlarge = cv2.INTER_CUBIC if rng.random() < 0.3 else cv2.INTER_LINEAR
        view = cv2.resize(view, (size, size), interpolation=enlarge)
    return view


def turn(patch: FacePatch, quarters: int) -> FacePatch:
    """Turn a patch by `quarters` x 90 degrees, anticlockwise."""
    image, box = patch.image, patch.box
    for _ in range(quarters % 4):
        x1, y1, x2, y2 = box
        box = y1, image.shape[1] - x2, y2, image.shape[1] - x1
        image = np.rot90(image)
    return FacePatch(np.ascontiguousarray(image), box)


def _random_resolution(patch: FacePatch, size: int, rng: np.random.Generator) -> int:
    """Draw the side in pixels at which the face is photographed: log-uniform in half of the draws, else unchanged."""
    x1, y1, x2, y2 = patch.box
    native = int(min(max(x2 - x1, y2 - y1), size))
    if native <= MIN_RESOLUTION or rng.random() < 0.5:
        return max(native, 4)
    return int(np.exp(rng.uniform(np.log(MIN_RESOLUTION), np.log(native))))


def _warp(patch: FacePatch, resolution: int, margin: float, rng: np.random.Generator) -> np.ndarray:
    image, (x1, y1, x2, y2) = patch.image, patch.box
    width, height = x2 - x1, y2 - y1
    scale, aspect = np.exp(rng.normal(0, 0.1)), np.exp(rng.normal(0, 0.06))
    centre_x = (x1 + x2) / 2 + rng.normal(0, 0.05) * width
    centre_y = (y1 + y2) / 2 + rng.normal(0, 0.05) * height
    half_width, half_height = width / 2 * scale * aspect, height / 2 * scale / aspect
    x1, y1, x2, y2 = square_around(
        (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height), margin
    )
    # As in crop_face, the part outside the image is cut off and the rest stretched.
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, image.shape[1]), min(y2, image.shape[0])
    shrink = resolution / max(x2 - x1, y2 - y1, 1)
    if shrink < 0.7:  # warpAffine does not average over the pixels it skips
        new_size = max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink))
        image = cv2.resize(image, new_size, interpolation=cv2.INTER_AREA)
        factor_x, factor_y = image.shape[1] / patch.image.shape[1], image.shape[0] / patch.image.shape[0]
        x1, y1, x2, y2 = x1 * factor_x, y1 * factor_y, x2 * factor_x, y2 * factor_y
    angle = np.deg2rad(rng.normal(0, TILT))
    mirror = -1 if rng.random() < 0.5 else 1
    # Maps pixels of the view to pixels of the patch: rotated and mirrored about the view's centre.
    step_x, step_y = max(x2 - x1, 1) / resolution, max(y2 - y1, 1) / resolution
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[mirror * step_x * cos, -step_x * sin, 0], [mirror * step_y * sin, step_y * cos, 0]])
    middle = (resolution - 1) / 2
    matrix[:, 2] = [(x1 + x2 - 1) / 2, (y1 + y2 - 1) / 2] - matrix[:, :2] @ [middle, middle]
    return cv2.warpAffine(
        image,
        matrix,
        (resolution, resolution),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def relight(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change exposure, contrast, colour temperature and saturation of a uint8 (H, W, 3) RGB image."""
    levels = np.arange(256, dtype=np.float32) / 255
    gamma, contrast, offset = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.15)), rng.normal(0, 0.05)
    curve = (levels**gamma - 0.5) * contrast + 0.5 + offset
    gains = np.exp(rng.normal(0, 0.06, 3))
    tables = np.clip(curve[:, None] * gains * 255, 0, 255).astype(np.uint8)
    view = cv2.LUT(view, tables[None])
    saturation = 0.0 if rng.random() < 0.05 else np.exp(rng.normal(0, 0.25))
    grey = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(view, saturation, grey, 1 - saturation, 0)


def _occlude(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover up to a tenth of the view with an ellipse of one colour, too small to hide a whole mask."""
    side = view.shape[0]
    axes = rng.uniform(0.05, 0.18, 2) * side
    centre = rng.uniform(0, 1, 2) * side
    colour = rng.integers(0, 256, 3).tolist()
    view = view.copy()
    cv2.ellipse(view, (tuple(centre), tuple(2 * axes), rng.uniform(0, 180)), colour, cv2.FILLED)
    return view


def degrade(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, add noise to and compress a uint8 (H, W, 3) RGB image, each with its own probability."""
    if rng.random() < 0.2:
        view = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.2:
        noise = rng.normal(0, rng.uniform(2, 10), view.shape)
        view = np.clip(view + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = int(rng.integers(25, 95))
        view = cv2.imdecode(cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return view
