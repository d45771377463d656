"""Run units of work on a Ray cluster, with Ray Data: it places actors, restarts them, and bounds what is in flight."""

import io
import logging
import os
import pickle
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import numpy as np

from facemask.archive.sources import Unit
from facemask.archive.worker import UnitActor
from facemask.errors import InputError

OBJECT_STORE = 128 << 20  # bytes of shared memory on this machine: only names and counts pass through it
PER_ACTOR = 8  # units of work that each actor gets at least, so that none waits long for the others at the end
MAX_SIZE = 1024  # images of a unit
CHECK = 10.0  # s between two questions whether the cluster is there, and for an answer
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal

logger = logging.getLogger("facemask")


@contextmanager
def cluster(address: str | None, actors: int | None) -> Iterator[int]:
    """Connect to a Ray cluster, or start one on this machine, and yield the number of actors: one per core by default.

    Raises InputError if there is no cluster at `address`, or it has fewer cores than `actors`.
    """
    # read when Ray starts: nothing is sent to its makers, and the actors run with this process's priority, not 15 steps below
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")  # of glibc: several heaps of a process grow with the images (docs/archives.md)
    if address is not None:
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # of 20, each a minute long, if nobody is at that address
        if ":" in address and (reason := _unreachable(address)):
            raise InputError(f"{address}: cannot be reached ({reason}); check --address")
    import ray
    from ray.data import DataContext

    options: dict = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    if address is None:
        shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else OBJECT_STORE
        options |= {"object_store_memory": max(80 << 20, min(OBJECT_STORE, shared // 2))}
        options |= {"num_cpus": actors} if actors else {}
    with redirect_stdout(RayMessages()):
        try:
            with _kept_signals():
                ray.init(address=address or "local", **options)
        except Exception as error:  # Ray's have no common base below it
            why = str(error).partition("\n")[0].partition(". ")[0]
            if address:
                raise InputError(f"{address}: cannot be reached ({why}); check --address") from error
            raise InputError(f"Ray: cannot start ({why}); is the machine too busy? try again") from error
        try:
            DataContext.get_current().enable_progress_bars = False
            for name in ("ray", "ray.data"):
                logging.getLogger(name).setLevel(logging.ERROR)
            cores = int(ray.cluster_resources().get("CPU", 1))
            if actors and actors > cores:
                raise InputError(f"--actors {actors}: the cluster has {cores} cores; give that number, or fewer")
            head = ray.get_runtime_context().gcs_address
            if address is not None and address.startswith("ray://"):  # the head's own address may be out of reach
                head = address
            with watched(head):
                yield actors or cores
        finally:
            ray.shutdown()


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Put back the handler of SIGTERM, in whose place Ray sets one that ends its processes below us, and us with an abort."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def watched(address: str) -> Iterator[None]:
    """Log a warning when a cluster's head does not answer: Ray ends this process a minute later, without a word."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(address, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _watch(address: str, ended: threading.Event) -> None:
    was_there = True
    while not ended.wait(CHECK):
        reason = _unreachable(address)
        if reason and was_there:
            text = "Ray at %s: cannot be reached (%s); if that lasts, this run ends, and the same command with --resume continues"
            logger.warning(text, address, reason)
        was_there = not reason


def _unreachable(address: str) -> str | None:
    """Return why nothing answers at HOST:PORT, or ray://HOST:PORT; None if something does."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CHECK).close()
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


class RayMessages(io.TextIOBase):
    """In the place of stdout, on which Ray reports what failed, in many lines: logs the first sentence of each report, once."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        sentence = COLOURS.sub("", text).strip().partition("\n")[0].partition(". ")[0]
        if sentence and sentence not in self._logged:
            self._logged.add(sentence)
            logger.warning("%s", sentence)
        return len(text)


def unit_size(images: int, actors: int) -> int:
    """Return how many images a unit of work has by default: MAX_SIZE, or fewer, so that all actors have some."""
    return max(1, min(MAX_SIZE, -(-images // (PER_ACTOR * actors))))


def run_units(units: Sequence[Unit], actor: type[UnitActor], settings: object, actors: int, device: str = "cpu") -> Iterator:
    """Process units with that many actors, each made of `settings`, with one core; yield what they return as units end.

    If `device` is "cuda", they share the GPUs of the cluster; Ray shows none to others. Ray restarts actors that end, and
    gives what they had to others. They run in the folder of this process, if their machine has it: relative paths are of that.

    Raises InputError as `actor.process`.
    """
    import ray
    from ray.exceptions import RayError

    count = min(actors, len(units))
    gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / max(count, 1)) if device == "cuda" else 0
    items = [{"unit": pickle.dumps(unit)} for unit in units]
    if not items:
        return
    results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        InFolder,
        fn_constructor_args=(os.getcwd(), actor, settings),
        batch_size=1,
        num_cpus=1,
        num_gpus=gpus or None,
        compute=ray.data.ActorPoolStrategy(size=count),
    )
    try:
        for row in results.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, InputError):
                raise result
            yield result
    except RayError as error:
        raise _cause(error) from error


class InFolder:
    """An actor in a folder, where its machine has it; Ray's are in that in which `ray start` ran."""

    def __init__(self, folder: str, actor: Callable[[object], UnitActor], settings: object) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)
        self._actor = actor(settings)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._actor(batch)


def _cause(error: BaseException) -> Exception:
    """Return the InputError that an actor raised, else one with the last line of Ray's error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return InputError(str(cause.args[0] if cause.args else cause).strip().splitlines()[-1])
        cause = getattr(cause, "cause", None) or cause.__cause__
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return InputError(f"Ray: a unit of work failed ({last}); the same command with --resume continues")
