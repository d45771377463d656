"""What the command lines share: argument types and options."""

import argparse
import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from facemask.errors import InputError
from facemask.models import default_files

DEFAULT_MODEL = default_files.MASK_CLASSIFIER
DEFAULT_FACE_DETECTOR = default_files.FACE_DETECTOR
PLOT_SUFFIXES = (".png", ".jpg", ".pdf", ".svg")

logger = logging.getLogger("facemask")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines and adds each option's default, where it has one and its help does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def probability(text: str) -> float:
    """Parse a number from 0 to 1 (an argparse type)."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, received {text!r}")


def positive_number(text: str) -> float:
    """Parse a finite number above 0 (an argparse type)."""
    with suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"must be a number above 0, received {text!r}")


def positive_int(text: str) -> int:
    """Parse a whole number from 1 (an argparse type)."""
    with suppress(ValueError):
        if (value := int(text)) >= 1:
            return value
    raise argparse.ArgumentTypeError(f"must be a whole number from 1, received {text!r}")


def detector_size(text: str) -> int:
    """Parse a number of pixels that a face detector may work at (an argparse type)."""
    with suppress(ValueError):
        if 64 <= (value := int(text)) <= 4096:
            return value
    raise argparse.ArgumentTypeError(f"must be a whole number from 64 to 4096, received {text!r}")


def natural_int(text: str) -> int:
    """Parse a whole number from 0 (an argparse type)."""
    with suppress(ValueError):
        if (value := int(text)) >= 0:
            return value
    raise argparse.ArgumentTypeError(f"must be a whole number from 0, received {text!r}")


def natural_number(text: str) -> float:
    """Parse a number from 0, infinity included (an argparse type)."""
    with suppress(ValueError):
        if (value := float(text)) >= 0:
            return value
    raise argparse.ArgumentTypeError(f"must be a number from 0, received {text!r}")


def frame_rate(text: str) -> float:
    """Parse frames per second (an argparse type)."""
    with suppress(ValueError):
        if 0.01 <= (value := float(text)) <= 240:
            return value
    raise argparse.ArgumentTypeError(f"must be a number from 0.01 to 240, received {text!r}")


def host_and_port(text: str) -> tuple[str, int]:
    """Parse [HOST:]PORT (an argparse type); the host is this machine alone where none is given."""
    host, _, port = text.rpartition(":")
    if port.isdecimal() and int(port) < 65536:
        return host.strip("[]") or "127.0.0.1", int(port)
    raise argparse.ArgumentTypeError(f"must be a port, as 8000, or a host and a port, as 0.0.0.0:8000, received {text!r}")


def label_pair(text: str) -> tuple[str, str]:
    """Parse OLD=NEW, two class names (an argparse type); NEW may be empty."""
    old, equals, new = text.partition("=")
    if old and equals:
        return old, new
    raise argparse.ArgumentTypeError(f"must be OLD=NEW, as face=without_mask, received {text!r}")


def folder_limit(text: str) -> tuple[Path, int]:
    """Parse FOLDER=N (an argparse type)."""
    folder, _, number = text.rpartition("=")
    if folder and number.isdecimal():
        return Path(folder), int(number)
    raise argparse.ArgumentTypeError(f"must be FOLDER=N, as photos=500, received {text!r}")


def set_threshold(text: str) -> tuple[Path, float]:
    """Parse SET=IOU, a folder and a number from 0 to 1 (an argparse type)."""
    folder, _, number = text.rpartition("=")
    with suppress(argparse.ArgumentTypeError):
        if folder:
            return Path(folder), probability(number)
    raise argparse.ArgumentTypeError(f"must be SET=IOU with an IOU from 0 to 1, as street=0.3, received {text!r}")


def add_rename_argument(parser: argparse.ArgumentParser) -> None:
    """Add --rename, for the scripts that read annotated photos; its value is a list of pairs, for `dict`."""
    parser.add_argument(
        "--rename",
        nargs="+",
        action="extend",
        type=label_pair,
        default=[],
        metavar="OLD=NEW",
        help="rename classes of the data sets; an empty NEW drops the class (default: names as they are)",
    )


def add_detector_arguments(parser: argparse.ArgumentParser, tiles: str) -> None:
    """Add the options that the detecting scripts have; `tiles` is the default of --tiles."""
    parser.add_argument(
        "-f",
        "--face",
        type=Path,
        default=DEFAULT_FACE_DETECTOR,
        help="face detector: an .onnx file, or the folder of ours (default: face_detector)",
    )
    parser.add_argument(
        "--detector-size",
        type=detector_size,
        metavar="PX",
        help="longest side to which the face detector scales a picture: larger finds smaller faces, and takes longer "
        "(default: 512)",
    )
    parser.add_argument(
        "--tiles",
        choices=("auto", "off"),
        default=tiles,
        help="auto: look again, closer and in tiles, where a picture shows a crowd of small faces",
    )
    parser.add_argument(
        "--max-faces", type=positive_int, default=1000, metavar="N", help="most faces of a picture; the surest are kept"
    )
    add_max_pixels(parser)
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        default=DEFAULT_MODEL,
        help=f"mask classifier: .keras (run from the .onnx beside it) or .onnx (default: {DEFAULT_MODEL.name})",
    )
    parser.add_argument(
        "-c",
        "--confidence",
        type=probability,
        default=0.5,
        help="least confidence, 0..1, of the face detector for a face to count",
    )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add --max-pixels, which bounds the memory that pictures take."""
    parser.add_argument(
        "--max-pixels",
        type=positive_int,
        default=250_000_000,
        metavar="N",
        help="largest picture to read, in pixels, each of which takes up to 20 bytes of memory",
    )


def check_plot_name(path: Path) -> None:
    """Raise InputError unless matplotlib writes files of that suffix."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise InputError(f"{path}: unknown kind of plot; give a .png, .jpg, .pdf or .svg file")


def add_only_argument(parser: argparse.ArgumentParser) -> None:
    """Add --only, for the scripts that read annotated photos; `listed_names` reads the files."""
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="[FOLDER=]FILE",
        help="use only the annotated photos that FILE lists, one name without suffix per line; with FOLDER=, for that data set "
        "alone (default: all photos)",
    )


def listed_names(only: Sequence[str], folders: Iterable[Path]) -> dict[Path, list[str] | None]:
    """Return for each data set the names that --only lists for it, None if it lists none.

    Raises InputError if a file cannot be read.
    """
    names: dict[Path, list[str] | None] = dict.fromkeys(folders)
    for text in only:
        folder, equals, file = text.partition("=")
        of_one_folder = equals and Path(folder) in names
        listed = read_names(Path(file if of_one_folder else text))
        for each in [Path(folder)] if of_one_folder else names:
            names[each] = [*(names[each] or []), *listed]
    return names


def read_names(path: Path) -> list[str]:
    """Read a file with one name per line. Raises InputError if it cannot be read."""
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a text file with one photo's name per line") from error


def add_show_argument(parser: argparse.ArgumentParser) -> None:
    """Add --show/--no-show; None means: where there is a display."""
    parser.add_argument(
        "--show", action=argparse.BooleanOptionalAction, help="open a window (default: only where there is a display)"
    )


def load_detector(args: argparse.Namespace, threads: int = 0):
    """Load both networks as the arguments say; returns a MaskDetector, which computes with so many threads (0: one a core)."""
    from facemask.detector import MaskDetector
    from facemask.models.face_detectors import load_face_detector
    from facemask.models.mask_classifier import MaskClassifier

    faces = load_face_detector(args.face, args.detector_size, args.tiles == "auto", threads, args.max_faces)
    detector = MaskDetector(faces, MaskClassifier.load(args.model, threads))
    info = detector.classifier.info
    classes = ", ".join(info.labels)
    logger.info(
        "loaded %s and %s (%s; %d px; %s)", faces.name, args.model, classes, info.input_size, detector.classifier.backend
    )
    return detector
