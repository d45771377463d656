"""Run a script: exit codes, signals, messages."""

import argparse
import faulthandler
import io
import logging
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from facemask.errors import InputError, one_line
from facemask.models.default_files import IS_INSTALLED

DESKTOP_LIBRARIES = ("libGL", "libgthread", "libglib", "libX", "libSM")  # that opencv-python needs on Linux
VIDEO_MODULES = ("trackers", "supervision", "av")  # of the extra "video"
TRAINING_MODULES = ("tensorflow", "torch", "jax", "keras", "h5py", "sklearn", "matplotlib", "onnx", "defusedxml", "yaml")
REQUIREMENTS = {
    "[train]": "requirements.txt",
    "[notify]": "requirements-notify.txt",
    "[archive]": "requirements-archive.txt",
    "[export]": "requirements-export.txt",
}  # of extras, in a checkout
NOTIFY_MODULES = ("apprise", "paho")
TENSORFLOW_ENDS = (3, 14)  # the first Python without it; pyproject.toml has the same marker
ARCHIVE_MODULES = ("ray", "pyarrow", "fsspec")
EXPORT_MODULES = ("openvino",)
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, kill, a closed terminal; Windows has no SIGHUP
REPEAT_SECONDS = 5.0  # a second signal within this time ends the process at once
OPEN_ELSEWHERE = (32, 33)  # Windows' error numbers of a file that another program has open or locked
DONE, FAILED = 0, 1  # exit codes; 2 is that of argparse, 128 + its number that of a signal


class OneLineFormatter(logging.Formatter):
    """Writes a record as one line, whatever it contains."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def run(script: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a script and return its exit code; an InputError becomes one line on stderr."""
    with _without_c_stderr():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(OneLineFormatter("[%(levelname)s] %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
        logging.addLevelName(logging.WARNING, "WARN")
        quiet_libraries()
        if isinstance(sys.stdout, io.TextIOWrapper):  # in tests it may be another object
            sys.stdout.reconfigure(errors="backslashreplace")
        return _run(script, args)


def _run(script: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    def is_default(handler: object) -> bool:  # signals that are ignored or handled otherwise stay so
        return handler in (signal.SIG_DFL, signal.default_int_handler)

    with _handle_signals(_Interrupt(), is_default):
        try:
            return _report_errors(script, args)
        except KeyboardInterrupt as error:
            print("[INFO] stopped", file=sys.stderr)
            return 128 + (error.args[0] if error.args else signal.SIGINT)


def _report_errors(script: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    try:
        return script(args)
    except InputError as error:
        print(one_line(f"error: {error}"), file=sys.stderr)
        return FAILED
    except ImportError as error:
        print(f"error: {explain_import(error)}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # The reader of stdout has ended (`| head`). Python would report it again when it flushes at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        what, why = error.filename or "files", error.strerror or error
        is_open = getattr(error, "winerror", None) in OPEN_ELSEWHERE
        remedy = "close it in the other program, and start again" if is_open else "check the disk and the permissions"
        print(one_line(f"error: {what}: {why}; {remedy}"), file=sys.stderr)
        return FAILED
    except MemoryError:
        print("error: memory: there is not enough; give smaller images, or fewer at once", file=sys.stderr)
        return FAILED


@contextmanager
def _without_c_stderr() -> Iterator[None]:
    """Drop what C libraries write to stderr, as of corrupt images: lines that name no file. Python still writes to it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # else the next file opened gets the number of a closed stream
        pass
    os.close(number)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    stderr = sys.__stderr__
    if stderr is None or sys.stderr is not stderr:  # captured, as in tests
        yield
        return
    stderr.flush()
    number = stderr.fileno()
    sys.stderr = open(os.dup(number), "w", buffering=1, encoding=stderr.encoding, errors="backslashreplace")  # noqa: SIM115
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), number)
    faulthandler.enable(sys.stderr)  # a crash is still reported
    try:
        yield
    finally:
        faulthandler.disable()
        with suppress(OSError):  # a closed terminal
            sys.stderr.flush()
        os.dup2(sys.stderr.fileno(), number)
        sys.stderr = stderr


class _Interrupt:
    """A signal handler that does what Ctrl-C does; a second signal within REPEAT_SECONDS ends the process at once."""

    def __init__(self) -> None:
        self.last = -math.inf

    def __call__(self, number: int, _: object) -> None:
        if time.monotonic() - self.last < REPEAT_SECONDS:
            os._exit(128 + number)  # files are whole at any moment
        self.last = time.monotonic()
        raise KeyboardInterrupt(number)


class _Stop:
    """A signal handler that calls `stop`; a second signal interrupts. `signals` lists the numbers received."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.signals: list[int] = []

    def __call__(self, number: int, _: object) -> None:
        if self.signals:
            raise KeyboardInterrupt
        self.signals.append(number)
        self.stop()


@contextmanager
def _handle_signals(handler: Callable, replaces: Callable[[object], bool]) -> Iterator[None]:
    """Handle STOP_SIGNALS with `handler`, except those whose present handler it must not replace."""
    previous = {}
    for name in STOP_SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and replaces(signal.getsignal(number)):
            with suppress(ValueError):  # not in the main thread
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Make Ctrl-C, SIGTERM and a closed terminal call `stop`, and yield the list of the signals received.

    A second signal interrupts, as KeyboardInterrupt. Signals that were ignored before stay so.
    """
    handler = _Stop(stop)
    with _handle_signals(handler, lambda present: present is not signal.SIG_IGN):
        yield handler.signals


def quiet_libraries() -> None:
    """Silence OpenCV, FFmpeg, TensorFlow and Pillow, before they are imported: their messages take many lines."""
    for name, value in (("OPENCV_LOG_LEVEL", "SILENT"), ("OPENCV_FFMPEG_LOGLEVEL", "-8"), ("TF_CPP_MIN_LOG_LEVEL", "3")):
        os.environ.setdefault(name, value)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="PIL")  # as of corrupt EXIF


def explain_import(error: ImportError) -> str:
    """Return what to install when an import fails."""
    if any(library in str(error) for library in DESKTOP_LIBRARIES):
        return (
            f"OpenCV: cannot start here ({error}); on a machine without a desktop: "
            "pip uninstall -y opencv-python; pip install --force-reinstall --no-deps opencv-python-headless"
        )
    name = (error.name or "").partition(".")[0]
    if name == "tensorflow" and sys.version_info >= TENSORFLOW_ENDS:
        return (
            f"tensorflow: has no release for Python {sys.version_info[0]}.{sys.version_info[1]}; "
            "use Python 3.13; to train, pip install jax and set KERAS_BACKEND=jax (or torch)"
        )
    modules = {
        "video": VIDEO_MODULES, "train": TRAINING_MODULES, "notify": NOTIFY_MODULES, "archive": ARCHIVE_MODULES,
        "export": EXPORT_MODULES,
    }  # fmt: skip
    extra = next((f"[{extra}]" for extra, names in modules.items() if name in names), "")
    requirements = REQUIREMENTS.get(extra, "requirements-detect.txt")
    what = f'"facemask-detector{extra}"' if IS_INSTALLED else f"-r {requirements}"
    return f"{name or error.name}: is not installed; pip install {what}"
