"""What the command lines share: argument types, options, and loading the detector that they name."""

import argparse
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from facemask.errors import InputError
from facemask.models import default_files
from facemask.models.devices import AUTO, NAMES

if TYPE_CHECKING:
    from facemask.io.collect import Collector

DEFAULT_MODEL = default_files.MASK_CLASSIFIER
DEFAULT_FACE_DETECTOR = default_files.FACE_DETECTOR
PLOT_SUFFIXES = (".png", ".jpg", ".pdf", ".svg")

logger = logging.getLogger("facemask")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description, and adds the default of each option that has one and whose help does not state it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_off = action.default is None or action.default is False or action.default == []
        if is_off or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def number(kind: type, low: float, high: float, expected: str) -> Callable[[str], float]:
    """Return an argparse type: parses an int or float, `kind`, from `low` to `high`, else says what is `expected`."""

    def parse(text: str) -> float:
        with suppress(ValueError):
            if low <= (value := kind(text)) <= high:
                return value
        raise argparse.ArgumentTypeError(f"must be {expected}, received {text!r}")

    return parse


probability = number(float, 0, 1, "a number from 0 to 1")
positive_number = number(float, sys.float_info.min, sys.float_info.max, "a number above 0")
natural_number = number(float, 0, math.inf, "a number from 0")  # or infinity
frame_rate = number(float, 0.01, 240, "a number from 0.01 to 240")
positive_int = number(int, 1, math.inf, "a whole number from 1")
natural_int = number(int, 0, math.inf, "a whole number from 0")
port = number(int, 0, 65535, "a port from 0 to 65535")
detector_size = number(int, 64, 4096, "a whole number from 64 to 4096")


def pair(key: Callable, value: Callable, expected: str) -> Callable[[str], tuple]:
    """Return an argparse type: parses KEY=VALUE with these two types, else says what is `expected`."""

    def parse(text: str) -> tuple:
        left, _, right = text.rpartition("=")
        with suppress(ValueError, argparse.ArgumentTypeError):
            if left:
                return key(left), value(right)
        raise argparse.ArgumentTypeError(f"must be {expected}, received {text!r}")

    return parse


label_pair = pair(str, str, "OLD=NEW, as face=without_mask")  # NEW may be empty
folder_limit = pair(Path, natural_int, "FOLDER=N, as photos=500")
class_weight = pair(str, positive_number, "NAME=WEIGHT, as with_mask=2")
set_threshold = pair(Path, probability, "SET=IOU with an IOU from 0 to 1, as street=0.3")


def weighted_folder(text: str) -> tuple[Path, float]:
    """Parse FOLDER or FOLDER=WEIGHT (an argparse type)."""
    folder, equals, weight = text.rpartition("=")
    return (Path(folder), positive_number(weight)) if equals else (Path(text), 1.0)


def file_path(text: str) -> Path:
    """Parse the name of a file or folder (an argparse type), ~ being the home folder also in quotes."""
    return Path(os.path.expanduser(text))


def output_place(text: str):
    """Parse where annotated images go (an argparse type); returns a `facemask.io.outputs.Place`."""
    from facemask.io.outputs import Place

    return Place.parse(text)


def host_and_port(text: str) -> tuple[str, int]:
    """Parse [HOST:]PORT (an argparse type); without a host it is this machine alone."""
    host, _, port = text.rpartition(":")
    if port.isdecimal() and int(port) < 65536:
        return host.strip("[]") or "127.0.0.1", int(port)
    raise argparse.ArgumentTypeError(f"must be a port, as 8000, or a host and a port, as 0.0.0.0:8000, received {text!r}")


def non_empty(text: str) -> str:
    """Parse a text that is not empty (an argparse type)."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


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


def add_detector_arguments(parser: argparse.ArgumentParser, tiles: str | None) -> None:
    """Add the options of the scripts that detect faces; `tiles` is the default of --tiles, None if images and videos differ."""
    parser.add_argument(
        "-f",
        "--face",
        type=file_path,
        default=DEFAULT_FACE_DETECTOR,
        help="face detector: an .onnx file, or the folder of this project's (default: face_detector)",
    )
    parser.add_argument(
        "--detector-size",
        type=detector_size,
        metavar="PX",
        help="longest side in pixels to which the face detector scales an image: a larger one finds smaller faces, and takes "
        "longer (default: 576)",
    )
    parser.add_argument(
        "--tiles",
        choices=("auto", "off"),
        default=tiles,
        help="auto: also infer enlarged tiles of the parts of an image that show small faces"
        + ("" if tiles else " (default: auto for images, off for videos)"),
    )
    parser.add_argument(
        "--max-faces",
        type=positive_int,
        default=1000,
        metavar="N",
        help="maximum number of faces per image; keeps the most confident",
    )
    add_max_pixels(parser)
    parser.add_argument(
        "-m",
        "--model",
        type=file_path,
        default=DEFAULT_MODEL,
        help=f"mask classifier: .keras (run from the .onnx beside it) or .onnx (default: {DEFAULT_MODEL.name})",
    )
    parser.add_argument(
        "-c",
        "--confidence",
        type=probability,
        default=0.5,
        help="minimum confidence, 0..1, of a detected face",
    )
    parser.add_argument(
        "--device",
        choices=NAMES,
        default=AUTO,
        help="what runs the networks: cuda, directml, openvino and coreml need their own build of onnxruntime "
        "(docs/devices.md); auto is cuda or directml where there is one, else cpu",
    )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add --max-pixels, which bounds the memory that images take."""
    parser.add_argument(
        "--max-pixels",
        type=positive_int,
        default=250_000_000,
        metavar="N",
        help="maximum pixels of an image to read; each takes up to 20 bytes of memory",
    )


def check_plot_name(path: Path) -> None:
    """Raise InputError if matplotlib does not write files with this suffix."""
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


def add_collect_arguments(parser: argparse._ActionsContainer) -> None:
    """Add --collect and its limit, for the scripts that detect."""
    parser.add_argument(
        "--collect",
        type=Path,
        metavar="FOLDER",
        help="write images that are worth labelling, with boxes and labels in YOLO and Pascal VOC: unsure labels and faces, "
        "frames unlike their track, a few by chance; no near-duplicates",
    )
    parser.add_argument(
        "--collect-limit",
        type=positive_int,
        default=300,
        metavar="N",
        help="maximum number of images in the folder of --collect, those of earlier runs included",
    )


def add_column_argument(parser: argparse.ArgumentParser) -> None:
    """Add --column, for what reads Parquet files with images."""
    parser.add_argument(
        "--column", metavar="NAME", help="column of Parquet files that holds the images or paths (default: found)"
    )


def add_ray_arguments(parser: argparse._ActionsContainer) -> None:
    """Add --address and --actors, for what runs on Ray."""
    parser.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster, or auto (default: one is started on this machine)")
    parser.add_argument("--actors", type=positive_int, metavar="N", help="processes (default: one per core)")


def add_turns_argument(parser: argparse.ArgumentParser, default: str | None = "auto") -> None:
    """Add --turns, for the scripts that read images; `default` is None if they read videos too, which do not have it."""
    parser.add_argument(
        "--turns",
        choices=("auto", "off"),
        default=default,
        help="auto: also infer an image without a confident face turned by 90, 180 and 270 degrees, and take the angle that "
        "clearly shows more faces" + ("" if default else "; not for videos (default: auto)"),
    )


def open_collector(args: argparse.Namespace, classes: Sequence[str]) -> "Collector | None":
    """Return what collects images into the folder of --collect; None if none is given."""
    if not args.collect:
        return None
    from facemask.io.collect import Collector

    return Collector(args.collect, classes, args.collect_limit)


def add_page_arguments(parser: argparse._ActionsContainer) -> None:
    """Add who may see a page, and how it is encrypted."""
    parser.add_argument(
        "--password",
        type=non_empty,
        metavar="TEXT",
        help="what browsers must give; better in the environment variable FACEMASK_PASSWORD, as other users of this machine see "
        "command lines (default: none for this machine alone, otherwise one that is made and printed)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="encrypt the page, with this certificate in PEM format")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key (default: in its file)")


def add_show_argument(parser: argparse._ActionsContainer) -> None:
    """Add --show/--no-show; None means: if there is a display."""
    parser.add_argument(
        "--show", action=argparse.BooleanOptionalAction, help="open a window (default: only if there is a display)"
    )


def load_detector(args: argparse.Namespace, threads: int = 0):
    """Load both networks as the arguments say; returns a MaskDetector that computes with `threads` threads (0: one per core)."""
    from facemask import api

    tiles = args.tiles == "auto"
    turns = getattr(args, "turns", "off") == "auto"  # video has no such option: its sources state how they are turned
    detector = api.load_detector(
        args.model,
        args.face,
        size=args.detector_size,
        tiles=tiles,
        check_turns=turns,
        max_faces=args.max_faces,
        threads=threads,
        device=args.device,
    )
    faces, classifier = detector.faces.name, detector.classifier
    labels, size = ", ".join(classifier.info.labels), classifier.info.input_size
    logger.info("loaded %s and %s (%s; %d px; %s)", faces, args.model, labels, size, classifier.backend)
    return detector
