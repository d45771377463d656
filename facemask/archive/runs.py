"""Begin a run over an output, or continue it: never two at once, never with other options."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facemask.archive.parts import Output
from facemask.archive.stores import is_remote
from facemask.archive.tables import CLIPS, EVENTS, FACES, TRACKS
from facemask.archive.worker import RUN_FILE
from facemask.errors import InputError
from facemask.io.outputs import lock_output, unlock_output

SUMMARY = "summary.json"  # in the output, once the run is done


def check(output: Output, options: dict, resume: bool) -> None:
    """Raise InputError if an output holds results, and `resume` is False or they were made with other options."""
    if not any(output.parts(table)[1] for table in (FACES, CLIPS, TRACKS, EVENTS)):
        return
    if not resume:
        raise InputError(f"{output.name()}: holds results of another run; add --resume to continue it, or name another folder")
    previous = output.read_json(RUN_FILE)
    if previous is not None and previous.get("options") != json.loads(json.dumps(options)):
        earlier = previous.get("options") or {}
        others = ", ".join(name for name in options if earlier.get(name) != options[name])
        raise InputError(f"{output.name()}: was written with other options ({others}); give the same, or name another folder")


@contextmanager
def begin(output: Output, run: str, options: dict, resume: bool) -> Iterator[None]:
    """Note in the output that `run` writes to it now, with these options, and lock it if it is on this machine.

    Raises InputError as `check`, or if it cannot be written.
    """
    local = not is_remote(output.uri)
    lock = lock_output(Path(output.path("run")[1]), output.name()) if local else None
    try:
        check(output, options, resume)
        store, summary = output.path(SUMMARY)
        store.remove(summary)
        output.write_json(RUN_FILE, {"run": run, "options": options})
        yield
    finally:
        if lock:
            unlock_output(lock)
