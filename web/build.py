"""Write the page that detects masks in the browser, with all that it needs: a folder for any static host.

  npm ci --prefix web --ignore-scripts     onnxruntime-web, once
  python -m web.build -o web/dist

All constants of the detection, class names and colours come from the Python modules, into settings.json.
"""

import argparse
import gzip
import json
import logging
import sys
from pathlib import Path

from facemask import boxes, detector, drawing, labels
from facemask.cli import options
from facemask.cli.run import DONE, run
from facemask.errors import InputError
from facemask.io import images, records
from facemask.models import center_face, default_files
from facemask.models.center_face import CenterFaceDetector, PlattScaling
from facemask.models.mask_classifier import MaskClassifier
from facemask.models.model_file import ModelFile
from facemask.models.model_info import METADATA_NAME, ModelInfo
from facemask.serving import pages
from web.half import half_weights

logger = logging.getLogger("facemask")

SOURCE = Path(__file__).resolve().parent
RUNTIME = SOURCE / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
PAGE_FILES = (
    "index.html", "style.css", "page.js", "tile.js", "camera.js", "drawing.js", "labels.js", "records.js", "worker.js",
    "networks.js", "detector.js", "face_detector.js", "classifier.js", "boxes.js", "image.js",
)  # fmt: skip
# Style and functions that the pages of facemask/serving share; the latter become a module of this page.
SHARED = Path(pages.__file__).parent
SHARED_NAMES = ("at", "drawImage", "fill", "fillCounts", "labelAbove", "make", "makeTile", "placeBox", "textOn")
# The networks with float32: browsers run them faster than those with 8-bit integers (web/README.md).
FACE_DETECTOR = default_files.FACE_DETECTOR / CenterFaceDetector.FILE_NAME
CLASSIFIER = default_files.FOLDER / "mask_detector.onnx"

# Names of constants that settings.json takes, and the module or class that has them.
DETECTION = (
    "BACKGROUND_TRUST", "BACKGROUND_TRUST_SIDES", "MAX_TURN_SCALE", "MIN_REDUCED_FACE", "MIN_REDUCED_SIDE",
    "MIN_TURN_CONFIDENCE", "MIN_TURN_EVIDENCE", "MIN_TURN_SCALE", "MIN_UPRIGHT_CONFIDENCE", "TURN_FACE", "UPRIGHT_CONFIDENCE",
)  # fmt: skip
DECODING = (
    "MAX_DECODED_SCORE", "MAX_OFFSET", "MAX_VOTE_RADIUS", "MIN_DECODED_SCORE", "MIN_UNBLURRED_SCALE", "MIN_VOTE_RADIUS",
    "PEAKINESS_EXPONENT", "PIXEL_SIGMA", "VOTE_RADIUS",
)  # fmt: skip
FACE_DETECTION = (
    "DOWNSCALE", "IOU_THRESHOLD", "MAX_CANDIDATES", "MAX_SCALE", "MAX_SMALL_FACE", "MAX_STRETCH", "MIN_DOWNSCALED_SIDE",
    "MIN_EXPECTED_CONFIDENCE", "MIN_EXPECTED_FACES", "MIN_INPUT", "MIN_LARGE_FACE", "MIN_SCORE", "MULTIPLE", "STRIDE",
    "TILE_BATCH", "TILE_OVERLAP", "ZOOM", "size",
)  # fmt: skip
DRAWING = ("BRIGHT", "CROWD", "MAX_COVERED", "MAX_LABEL_WIDTH", "SCREEN", "SMALL_FACE")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m web.build", description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "-o", "--output", type=options.file_path, default=SOURCE / "dist", metavar="FOLDER", help="folder to write"
    )
    return parser


def build(args: argparse.Namespace) -> int:
    contents = {path.name: read(path) for path in copied_files()}
    contents |= {path.name: half_weights(path) for path in (FACE_DETECTOR, CLASSIFIER)}
    contents["shared.js"] = read(SHARED / "page.js") + f"export {{{', '.join(SHARED_NAMES)}}};\n".encode()
    sizes = {name: len(content) for name, content in contents.items()}
    contents["settings.json"] = json.dumps(page_settings(sizes), indent=1).encode()
    args.output.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (args.output / name).write_bytes(content)
    total, compressed = (sum(map(len, each)) / 1e6 for each in (contents.values(), map(gzip.compress, contents.values())))
    logger.info("saved to %s: %.1f MB, %.1f MB with gzip", args.output, total, compressed)
    return DONE


def copied_files() -> list[Path]:
    """Return the files that the folder gets as they are."""
    runtime = [RUNTIME / name for name in RUNTIME_FILES]
    return [*(SOURCE / name for name in PAGE_FILES), SHARED / "page.css", *runtime]


def read(path: Path) -> bytes:
    """Return the content of a file. Raises InputError if onnxruntime-web is not installed."""
    if RUNTIME in path.parents and not path.is_file():
        raise InputError(f"{path.name}: is not installed; npm ci --prefix web --ignore-scripts")
    return path.read_bytes()


def page_settings(sizes: dict[str, int]) -> dict:
    """Return the content of settings.json, given the bytes of each file. Raises InputError if a network is corrupt."""
    scaling = PlattScaling.from_json(ModelFile.read(FACE_DETECTOR).metadata[CenterFaceDetector.METADATA_NAME])
    info = ModelInfo.from_json(ModelFile.read(CLASSIFIER).metadata[METADATA_NAME])
    downloads = {"runtime": RUNTIME_FILES[1], "face_detector": FACE_DETECTOR.name, "classifier": CLASSIFIER.name}
    return {
        "downloads": {key: {"name": name, "bytes": sizes[name]} for key, name in downloads.items()},
        "face_detector": {
            **constants(center_face, DECODING),
            **constants(CenterFaceDetector, FACE_DETECTION),
            "BACKGROUND": center_face.BACKGROUND.ravel().tolist(),
            "max_faces": boxes.MAX_FACES,
            "slope": scaling.slope,
            "shift": scaling.shift,
        },
        "classifier": {
            "classes": info.classes,
            "background": info.background,
            "input_size": info.input_size,
            "margin": info.margin,
            "BATCH_SIZE": MaskClassifier.BATCH_SIZE,
        },
        "detector": {
            **constants(detector, DETECTION),
            "UNSURE": labels.UNSURE,
            "REDUCTIONS": list(images.REDUCED_FLAGS),
        },
        "labels": {name: page_label(name) for name in info.labels},
        "drawing": constants(drawing, DRAWING) | {"dark": labels.css_colour(drawing.STATUS_COLOUR)},
        "records": {"CSV_COLUMNS": records.CSV_COLUMNS, "DIGITS": records.DIGITS},
    }


def page_label(name: str) -> dict[str, str]:
    """Return how the page shows a class."""
    return {"name": labels.display_name(name), "colour": labels.css_colour(labels.colour(name))}


def constants(owner: object, names: tuple[str, ...]) -> dict:
    """Return the constants of those names that a module or class has."""
    return {name: getattr(owner, name) for name in names}


def main(argv: list[str] | None = None) -> int:
    return run(build, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
