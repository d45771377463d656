"""Make the example images: public-domain portraits, bare and with a mask drawn on.

    pip install scikit-image opencv-python-headless
    pip download --no-binary face_recognition --no-deps face_recognition==1.3.0
    python draw_masks.py --photos face_recognition-1.3.0.tar.gz --output .

The same packages give the same images: the noise has a fixed seed.
"""

import argparse
import hashlib
import io
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from scipy.interpolate import RBFInterpolator  # scikit-image brings scipy

ARCHIVE_SHA256 = "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec"
PHOTO_FOLDER = "tests/test_images"  # in the archive and in its unpacked folder
JPEG_QUALITY = 90
SUPERSAMPLING = 4  # masks are drawn this many times larger, then shrunk: smooth edges
GAP = 6  # px of white between the tiles of people.jpg

# Where a flat mask's landmarks lie on it: u from -1 (left in the image) to 1,
# v from 0 (upper edge) to 1 (lower edge). Portrait.landmarks has the same order.
MASK_POINTS = [
    (-1, 0),
    (-0.5, 0),
    (0, 0),
    (0.5, 0),
    (1, 0),
    (-1, 0.5),
    (0, 0.5),
    (1, 0.5),
    (-1, 1),
    (-0.5, 1),
    (0, 1),
    (0.5, 1),
    (1, 1),
]


class InputError(Exception):
    """A mistake that the user can fix; the text says what, why and what to do."""


@dataclass(frozen=True)
class Portrait:
    """A photograph and where a mask sits in it; points are (x, y) pixels of the source.

    crop: x1, y1, x2, y2 of the single image. ears: where the loops vanish, top and lobe
    on the left, then on the right. light: BGR of a white thing in this light, 0..1.
    """

    crop: tuple
    light: tuple
    landmarks: list  # cheek bones and nose bridge; upper lip; jaw and chin
    ears: list


@dataclass(frozen=True)
class Style:
    """A kind of mask: colours are BGR, 0..1; relief is how deep light and shade go."""

    colour: tuple
    pleats: tuple = (0.30, 0.50, 0.70)  # v of each fold; none makes a sewn cloth mask
    taper: float = 0.03  # how far the edges close in towards the ears, in v
    dots: bool = False
    relief: float = 1.0
    loops: tuple = (0.93, 0.93, 0.93)


PORTRAITS = {
    "astronaut": Portrait(
        (36, 0, 416, 400),
        (0.93, 0.97, 1.0),
        [
            (181, 118),
            (202, 116),
            (225, 107),
            (249, 118),
            (270, 120),
            (183, 140),
            (222, 138),
            (266, 141),
            (189, 163),
            (203, 176),
            (223, 182),
            (244, 177),
            (260, 163),
        ],
        [(179, 109), (178, 130), (272, 111), (270, 134)],
    ),
    "obama": Portrait(
        (130, 0, 810, 800),
        (0.90, 0.92, 0.94),
        [
            (372, 262),
            (426, 252),
            (492, 230),
            (558, 254),
            (609, 262),
            (386, 320),
            (492, 304),
            (601, 320),
            (396, 372),
            (430, 413),
            (487, 435),
            (549, 413),
            (592, 370),
        ],
        [(366, 220), (372, 288), (613, 222), (608, 288)],
    ),
    "biden": Portrait(
        (160, 40, 970, 900),
        (0.75, 0.75, 0.78),
        [
            (424, 385),
            (510, 364),
            (598, 346),
            (655, 388),
            (702, 404),
            (426, 455),
            (590, 442),
            (692, 458),
            (438, 520),
            (492, 560),
            (562, 582),
            (626, 562),
            (672, 506),
        ],
        [(408, 288), (419, 410), (716, 370), (704, 436)],
    ),
    "obama3": Portrait(
        (380, 120, 1180, 920),
        (0.80, 0.81, 0.87),
        [
            (645, 455),
            (715, 428),
            (802, 402),
            (866, 426),
            (903, 450),
            (648, 508),
            (792, 484),
            (893, 515),
            (664, 562),
            (712, 600),
            (784, 620),
            (840, 607),
            (874, 572),
        ],
        [(641, 428), (637, 512), (908, 452), (901, 508)],
    ),
}
STYLES = {
    "blue": Style((0.90, 0.78, 0.58)),
    "white": Style((0.95, 0.95, 0.95)),
    "black": Style((0.19, 0.18, 0.18), (), 0.14, relief=1.7, loops=(0.13, 0.12, 0.12)),
    "dots": Style((0.42, 0.20, 0.16), (), 0.14, dots=True, relief=1.2),
}
SINGLES = {"astronaut": "blue", "obama": "black", "biden": "white"}
# people.jpg, a column after the other: (portrait, style or None, below the nose, height
# of the tile, magnification of the source).
COLUMN_WIDTH = 300
COLUMNS = [
    [("obama", "black", False, 360, 0.68), ("astronaut", None, False, 274, 1.30)],
    [("biden", None, False, 274, 0.48), ("astronaut", "dots", False, 360, 1.75)],
    [("obama3", "blue", False, 360, 0.62), ("obama", None, False, 274, 0.52)],
    [("astronaut", "blue", True, 274, 1.35), ("biden", "white", False, 360, 0.53)],
]


def smoothstep(low, high, x):
    """Go from 0 at low to 1 at high, flat at both ends."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def ridge(x, width):
    """Return a bump of height 1 at x = 0."""
    return np.exp(-((x / width) ** 2))


def blur(image, sigma):
    """Blur by sigma pixels, the borders mirrored."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def mask_coordinates(points, width, height):
    """Return u and v for every pixel, (height, width) each: a thin plate bent onto the face."""
    spline = RBFInterpolator(points, np.array(MASK_POINTS, float), kernel="thin_plate_spline")
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    uv = spline(np.column_stack([x.ravel(), y.ravel()])).reshape(height, width, 2)
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    return cv2.split(cv2.resize(uv.astype(np.float32), size, interpolation=cv2.INTER_CUBIC))


def cloth(u, v, style, rng):
    """Paint the mask in even light: BGR, float, 1.0 is white."""
    creases = blur(rng.standard_normal((256, 256)).astype(np.float32), 9)
    creases = cv2.resize(creases / creases.std(), (512, 256))  # longer across than down
    crease = cv2.remap(creases, (u + 1) * 255, v * 255, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    sway = 0.012 * np.sin(2.3 * u + 4 * v) + 0.004 * crease  # no fold is ruler-straight

    shade = 0.035 * crease - 0.30 * np.abs(u) ** 2.5 - 0.27 * smoothstep(0.66, 1.0, v)
    shade += 0.07 * ridge(u, 0.22) * smoothstep(0.55, 0.2, v)  # the nose lifts the cloth
    for fold in style.pleats:
        below = v - fold - sway
        shade += 0.10 * ridge(below + 0.022, 0.018) - 0.26 * ridge(below, 0.009)
        shade -= 0.13 * np.exp(-np.clip(below, 0, None) / 0.05) * (below > 0)
    if style.pleats:
        shade += 0.07 * ridge(v - 0.045, 0.012) * smoothstep(0.55, 0.4, np.abs(u))  # nose wire
        shade -= 0.10 * (ridge(v - 0.085, 0.006) + ridge(np.abs(u) - 0.93, 0.008))  # seams
        shade -= 0.05 * ridge(v - 0.93, 0.006)
    else:
        shade -= 0.25 * ridge(u + 0.3 * sway, 0.008) - 0.08 * ridge(u - 0.03, 0.02)
        shade -= 0.10 * ridge(np.abs(u) - 0.92, 0.01)
        shade -= 0.12 * ridge(v - 0.45 - 0.35 * np.abs(u), 0.06) * smoothstep(0.25, 0.8, np.abs(u))

    colour = np.ones((*u.shape, 3), np.float32) * np.float32(style.colour)
    if style.dots:
        column, row = u * 4.5, v * 8
        shift = np.floor(row) % 2 / 2
        radius = np.hypot((column + shift) % 1 - 0.5, row % 1 - 0.5)
        colour += smoothstep(0.27, 0.21, radius)[..., None] * (0.88 - colour)
    grain = rng.normal(0, 0.045, u.shape)  # threads; shrinking leaves about a quarter of it
    return colour * (1 + style.relief * shade + grain)[..., None].astype(np.float32)


def loop_cover(size, points, ears, upper, lower):
    """Return how far the ear loops cover each pixel of size (width, height), 0..1.

    points, ears: in the face's own pixels, before supersampling. upper, lower: v of the
    mask's corners, where the loops are sewn on.
    """
    cover = np.zeros(size[::-1], np.uint8)
    reach = np.linalg.norm(points[4] - points[0])
    for top, bottom, v, end in ((0, 8, upper, ears[0]), (0, 8, lower, ears[1]), (4, 12, upper, ears[2]), (4, 12, lower, ears[3])):
        start = points[top] + v * (points[bottom] - points[top])
        start += 0.03 * (points[6] - start)
        middle = (start + end) / 2 + (0, 0.012 * reach)
        t = np.linspace(0, 1, 30)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        cv2.polylines(
            cover,
            [np.int32(np.round(curve * SUPERSAMPLING))],
            False,
            255,
            max(1, round(0.012 * reach * SUPERSAMPLING)),
            cv2.LINE_AA,
        )
    return blur(cover.astype(np.float32) / 255, 1.5)


def draw_mask(image, portrait, style, below_nose=False):
    """Return a copy of the image, the portrait's source, with a mask drawn over the face."""
    points = np.array(portrait.landmarks, float)
    around = np.vstack([points, portrait.ears])
    margin = 0.15 * np.ptp(points[:, 0])
    x1, y1 = np.maximum(np.floor(around.min(0) - margin).astype(int), 0)
    x2, y2 = np.ceil(around.max(0) + margin).astype(int)
    origin = np.array([x1, y1])
    points -= origin
    photo = image[y1:y2, x1:x2].astype(np.float32) / 255
    height, width = photo.shape[:2]
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    face = cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC)
    u, v = mask_coordinates(points, width, height)
    sewn = style.taper + 0.04  # v of the loops' upper ends
    if below_nose:  # the cloth bunches up between the upper lip and the chin
        upper = 0.50 - 0.16 * u**2
        v = (v - upper) / (1 - upper)
        sewn += 0.34

    reach = np.ptp(points[:, 0]) * SUPERSAMPLING
    close = style.taper * u**4
    edge = np.minimum(np.minimum(v - close, 1 - close - v) * 0.7, (1 - np.abs(u)) * 0.5) * reach
    alpha = smoothstep(-SUPERSAMPLING * 0.7, SUPERSAMPLING * 0.7, edge).astype(np.float32)

    # The face's own light and shade, spread wide so that lips and teeth do not show through.
    grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
    spread = 0.10 * reach
    light = blur(grey * alpha, spread) / (blur(alpha, spread) + 1e-3)
    light = np.clip(light / light[alpha > 0.5].mean(), 0.6, 1.5) ** 0.8

    rng = np.random.default_rng(0)
    white = np.float32(portrait.light)
    mask = cloth(u, v, style, rng) * light[..., None] * white
    shadow = 0.45 * blur(alpha, 0.018 * reach) * smoothstep(1.0, 0.85, np.abs(u)) * (1 - alpha)
    loops = loop_cover(size, points, portrait.ears - origin, sewn, 0.96 - style.taper)
    result = face * ((1 - shadow) * (1 - 0.3 * blur(loops, 6)))[..., None]
    result += loops[..., None] * (np.float32(style.loops) * white * 0.92 - result)
    result += alpha[..., None] * (mask - result)

    drawn = cv2.resize(result, (width, height), interpolation=cv2.INTER_AREA)
    changed = cv2.resize(np.maximum.reduce([alpha, shadow, blur(loops, 6)]), (width, height), interpolation=cv2.INTER_AREA)
    drawn = np.where(changed[..., None] > 0.002, drawn, photo)  # the rest stays as photographed
    out = image.copy()
    out[y1:y2, x1:x2] = np.clip(np.round(drawn * 255), 0, 255).astype(np.uint8)
    return out


def tile(image, portrait, width, height, zoom):
    """Cut a tile of width x height pixels around the face."""
    x, y = np.array(portrait.landmarks)[[2, 6]].mean(0)  # between nose bridge and lip
    w, h = width / zoom, height / zoom
    x1 = round(min(max(x - w / 2, 0), image.shape[1] - w))
    y1 = round(min(max(y - 0.56 * h, 0), image.shape[0] - h))
    part = image[y1 : y1 + round(h), x1 : x1 + round(w)]
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    return cv2.resize(part, (width, height), interpolation=method)


def gallery(photos):
    """Put people.jpg together: columns of two tiles, white gaps between."""
    columns = []
    for rows in COLUMNS:
        tiles = []
        for name, style, below_nose, height, zoom in rows:
            image, portrait = photos[name], PORTRAITS[name]
            if style:
                image = draw_mask(image, portrait, STYLES[style], below_nose)
            tiles.append(tile(image, portrait, COLUMN_WIDTH, height, zoom))
        gap = np.full((GAP, COLUMN_WIDTH, 3), 255, np.uint8)
        columns.append(np.vstack([tiles[0], gap, tiles[1]]))
    gap = np.full((columns[0].shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([part for column in columns for part in (column, gap)][:-1])


def read_photos(path):
    """Read the portraits, BGR, from scikit-image and the face_recognition archive or folder."""
    photos = {"astronaut": cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)}
    archive = None
    try:
        if not path.is_dir():
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            if sha256 != ARCHIVE_SHA256:
                raise InputError(
                    f"{path}: its SHA-256 is {sha256}, expected {ARCHIVE_SHA256}; download face_recognition 1.3.0 again"
                )
            archive = tarfile.open(fileobj=io.BytesIO(content))  # noqa: SIM115 - of bytes in memory
        for name in sorted(PORTRAITS.keys() - photos.keys()):
            inside = f"{PHOTO_FOLDER}/{name}.jpg"
            if archive:  # noqa: SIM108
                data = archive.extractfile(f"face_recognition-1.3.0/{inside}").read()
            else:
                data = (path / inside).read_bytes()
            photos[name] = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if photos[name] is None:
                raise InputError(f"{path / inside}: not an image that OpenCV can read; unpack face_recognition 1.3.0 again")
    except OSError as error:
        raise InputError(
            f"{error.filename}: {error.strerror}; give --photos the archive of face_recognition 1.3.0 or the folder it unpacks to"
        ) from error
    return photos


def write_image(path, image):
    """Write a JPEG and say so."""
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
        raise InputError(f"{path}: cannot be written; choose another --output")
    print(f"{path}: {image.shape[1]}x{image.shape[0]} px, {path.stat().st_size / 1000:.0f} kB")


def build_parser():
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(description="Make the example images: portraits, bare and with a mask drawn on.")
    parser.add_argument(
        "-p",
        "--photos",
        type=Path,
        required=True,
        metavar="PATH",
        help="face_recognition-1.3.0.tar.gz, or the folder it unpacks to",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("."),
        metavar="FOLDER",
        help="existing folder for the images; files of the same name are replaced (default: the current folder)",
    )
    return parser


def main(argv=None):
    """Make all images; return the exit status."""
    args = build_parser().parse_args(argv)
    try:
        if not args.output.is_dir():
            raise InputError(f"{args.output}: not a folder; make it first")
        photos = read_photos(args.photos)
        for name, style in SINGLES.items():
            x1, y1, x2, y2 = PORTRAITS[name].crop
            masked = draw_mask(photos[name], PORTRAITS[name], STYLES[style])
            write_image(args.output / f"{name}.jpg", photos[name][y1:y2, x1:x2])
            write_image(args.output / f"{name}_mask.jpg", masked[y1:y2, x1:x2])
        write_image(args.output / "people.jpg", gallery(photos))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
