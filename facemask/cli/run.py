"""Run a script: exit codes, signals, messages."""

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

from facemask.errors import InputError
from facemask.models.default_files import IS_INSTALLED

DESKTOP_LIBRARIES = ("libGL", "libgthread", "libglib", "libX", "libSM")  # that opencv-python needs on Linux
VIDEO_MODULES = ("trackers", "supervision", "av")  # of the extra "video"
TRAINING_MODULES = ("tensorflow", "torch", "jax", "keras", "h5py", "sklearn", "matplotlib", "onnx", "pycocotools", "defusedxml")
IN_A_ROW = 5.0  # s from one signal to the next
DONE, FAILED = 0, 1  # exit codes; 2 is argparse's own, 128 and the signal's number are for signals


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
    name = (error.name or "").partition(".")[0]
    extra = "[video]" if name in VIDEO_MODULES else "[train]" if name in TRAINING_MODULES else ""
    requirements = "requirements.txt" if extra == "[train]" else "requirements-detect.txt"
    what = f'"facemask-detector{extra}"' if IS_INSTALLED else f"-r {requirements}"
    return f"{error.name}: is not installed; pip install {what}"
