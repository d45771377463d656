"""What the command lines share: argument types, messages, exit codes."""

import argparse
import faulthandler
import logging
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from facemask.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_MODEL = ROOT / "mask_detector.keras"
DEFAULT_FACE_DETECTOR = ROOT / "face_detector"
DESKTOP_LIBRARIES = ("libGL", "libgthread", "libglib", "libX", "libSM")  # that opencv-python needs on Linux
DETECTION_MODULES = ("cv2", "numpy", "PIL", "imutils", "tqdm", "trackers", "supervision", "av")  # of requirements-detect.txt
PLOT_SUFFIXES = (".png", ".jpg", ".pdf", ".svg")
IN_A_ROW = 5.0  # s from one signal to the next
DONE, FAILED = 0, 1  # exit codes; 2 is argparse's own, 128 and the signal's number are for signals

logger = logging.getLogger("facemask")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines and adds each option's default, where it has one and its help does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class OneLineFormatter(logging.Formatter):
    """Writes a record as one line, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def one_line(text: str) -> str:
    """Return text with line feeds, codes that a terminal would obey, and bytes that are not UTF-8 written as escapes.

    File names may hold any of them.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def run(script: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a script's work and return its exit code; a user's mistake becomes one line on stderr."""
    with _python_alone_on_stderr():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(OneLineFormatter("[%(levelname)s] %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
        logging.addLevelName(logging.WARNING, "WARN")
        quiet_libraries()
        with suppress(AttributeError):  # stdout may be another object, in tests
            sys.stdout.reconfigure(errors="backslashreplace")
        return _run(script, args)


def _run(script: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    before = _interrupt_on_signals()
    try:
        return _tell_errors(script, args)
    except KeyboardInterrupt as error:
        print("[INFO] stopped", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_errors(script: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    try:
        return script(args)
    except InputError as error:
        print(one_line(f"error: {error}"), file=sys.stderr)
        return FAILED
    except ImportError as error:
        print(f"error: {explain_import(error)}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # Whoever read stdout has gone (`| head`); Python would complain once more when it flushes at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        what, why = error.filename or "files", error.strerror or error
        print(one_line(f"error: {what}: {why}; check the disk and the rights"), file=sys.stderr)
        return FAILED
    except MemoryError:
        print("error: memory: there is not enough; give smaller pictures, or fewer at once", file=sys.stderr)
        return FAILED


@contextmanager
def _python_alone_on_stderr() -> Iterator[None]:
    """Send elsewhere what C libraries write to stderr of broken pictures and the like: lines that name no file."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # a closed one's number would go to the next file opened
        pass
    os.close(number)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is not sys.__stderr__:  # somebody reads it, as tests do
        yield
        return
    before = sys.stderr
    before.flush()
    number = before.fileno()
    sys.stderr = open(os.dup(number), "w", buffering=1, encoding=before.encoding, errors="backslashreplace")  # noqa: SIM115
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), number)
    faulthandler.enable(sys.stderr)  # a crash is told all the same
    try:
        yield
    finally:
        faulthandler.disable()
        with suppress(OSError):  # as of a terminal that is gone
            sys.stderr.flush()
        os.dup2(sys.stderr.fileno(), number)
        sys.stderr = before


def _interrupt_on_signals() -> dict[int, object]:
    """Have SIGTERM and a lost terminal do what Ctrl-C does; two in a row end the process at once. Returns the handlers before.

    Those that somebody ignores or handles otherwise stay so.
    """
    before, last = {}, -math.inf

    def interrupt(number: int, _: object) -> None:
        nonlocal last
        if time.monotonic() - last < IN_A_ROW:
            os._exit(128 + number)  # all that is written is whole at any moment
        last = time.monotonic()
        raise KeyboardInterrupt(number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            with suppress(ValueError):  # another thread than the main one
                before[number] = signal.signal(number, interrupt)
    return before


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Have Ctrl-C, SIGTERM and a lost terminal call `stop`, in place of breaking off; yields the list of those that came.

    A second one breaks off after all, as KeyboardInterrupt. Those that were ignored before stay so.
    """
    came: list[int] = []

    def handle(number: int, _: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        stop()

    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def quiet_libraries() -> None:
    """Have OpenCV, FFmpeg, TensorFlow and Pillow, not yet imported, leave the telling to us: what they say takes many lines."""
    for name, value in (("OPENCV_LOG_LEVEL", "SILENT"), ("OPENCV_FFMPEG_LOGLEVEL", "-8"), ("TF_CPP_MIN_LOG_LEVEL", "3")):
        os.environ.setdefault(name, value)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="PIL")  # of broken EXIF and the like


def explain_import(error: ImportError) -> str:
    """Say what to install when an import fails."""
    if any(library in str(error) for library in DESKTOP_LIBRARIES):
        return (
            f"OpenCV: cannot start here ({error}); on a machine without a desktop: "
            "pip uninstall -y opencv-python; pip install --force-reinstall --no-deps opencv-python-headless"
        )
    requirements = "requirements-detect.txt" if error.name in DETECTION_MODULES else "requirements.txt"
    return f"{error.name}: is not installed; pip install -r {requirements}"


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
        help="mask classifier: .keras (run from the .onnx beside it) or .onnx (default: mask_detector.keras)",
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
    """Add --only, for the scripts that read annotated photos."""
    parser.add_argument(
        "--only", type=Path, metavar="FILE", help="use only the annotated photos that it lists, by name without suffix"
    )


def read_names(path: Path | None) -> list[str] | None:
    """Read the names that --only gives, a line each; None where it is not given. Raises InputError if it cannot."""
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a text file, a photo's name a line") from error


def add_show_argument(parser: argparse.ArgumentParser) -> None:
    """Add --show/--no-show; None means: where there is a display."""
    parser.add_argument(
        "--show", action=argparse.BooleanOptionalAction, help="open a window (default: only where there is a display)"
    )


def wants_window(show: bool | None) -> bool:
    """Tell whether to open a window. Raises InputError if one is asked for where none can be."""
    from facemask.io.images import has_display

    if show and not has_display():
        raise InputError("--show: there is no display, or OpenCV has no windows (opencv-python-headless); leave --show away")
    return has_display() if show is None else show


def load_detector(args: argparse.Namespace, threads: int = 0):
    """Load both networks as the arguments say; returns a MaskDetector, which computes with so many threads (0: one a core)."""
    from facemask.detector import MaskDetector
    from facemask.models.face_detectors import choose_face_detector, load_face_detector
    from facemask.models.mask_classifier import MaskClassifier

    face_file = choose_face_detector(args.face) if args.face.is_dir() else args.face
    faces = load_face_detector(face_file, args.detector_size, args.tiles == "auto", threads, args.max_faces)
    detector = MaskDetector(faces, MaskClassifier.load(args.model, threads))
    info = detector.classifier.info
    classes = ", ".join(info.classes)
    logger.info(
        "loaded %s and %s (%s; %d px; %s)", face_file.name, args.model, classes, info.input_size, detector.classifier.backend
    )
    return detector
