#!/usr/bin/env python3
"""Compare ways to run detection in an archive on Ray: this project's, Ray Data with images as rows, an actor pool, tasks.

  python -m benchmarks.archive_designs photos/images --limit 500 --turns 2      rates, in turns, on this machine
  python -m benchmarks.archive_designs photos/images --limit 60 --kill          a process that detects is killed meanwhile

Each run is a process of its own, which starts Ray. Prints one JSON line per run: seconds until the first result, images per
second in all and after the first result, CPU seconds of the processes that detect per image, rows and errors found in the
output. All designs use the same code to detect, two processes and units of the same size. Needs the extra "archive"; Linux.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from facemask.archive.images import WORK, ImageWorker
from facemask.archive.job import cluster, run_units, unit_size
from facemask.archive.parts import Output, scan
from facemask.archive.runs import begin
from facemask.archive.sources import Files, Item, Unit
from facemask.archive.tables import FACES
from facemask.archive.worker import Settings
from facemask.cli import options

PROCESSES = 2
KILL_AFTER = 3  # results


class Timed(ImageWorker):
    """Returns with each unit the number of its images, its process and the CPU seconds that this has used so far."""

    def process(self, unit: Unit) -> tuple[int, int, float]:  # type: ignore[override]
        count = super().process(unit).counts.totals["images"]
        return count, os.getpid(), time.process_time()


Results = Iterator[tuple[int, int, float]]


def ray_data_units(units: list[Files], settings: Settings) -> Results:
    """Units of work as rows of Ray Data; actors read, detect and write: this project's way."""
    return run_units(units, Timed, settings, PROCESSES)


def actor_pool(units: list[Files], settings: Settings) -> Results:
    """The same actors, restarted by Ray, with units given out by ray.util.ActorPool."""
    import ray

    actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(Timed)
    pool = ray.util.ActorPool([actor.remote(settings) for _ in range(PROCESSES)])
    return pool.map_unordered(lambda each, unit: each.process.remote(unit), units)


_worker: Timed | None = None  # of a task's process


def _run_task(unit: Files, settings: Settings) -> tuple[int, int, float]:
    global _worker
    _worker = _worker or Timed(settings)
    return _worker.process(unit)


def tasks(units: list[Files], settings: Settings) -> Results:
    """A task per unit; its process keeps the networks for the next one."""
    import ray

    task = ray.remote(num_cpus=1, max_retries=-1)(_run_task)
    waiting = [task.remote(unit, settings) for unit in units]
    while waiting:
        done, waiting = ray.wait(waiting)
        yield ray.get(done[0])


class Rows:
    """An actor of Ray Data that gets images as rows and returns rows."""

    def __init__(self, settings: Settings) -> None:
        self._worker = ImageWorker(settings)

    def __call__(self, batch: dict) -> dict:
        rows = [
            self._worker._detect(Item(path, data=data)).record for path, data in zip(batch["path"], batch["bytes"], strict=True)
        ]
        return {
            "record": [json.dumps(row) for row in rows],
            "pid": [os.getpid()] * len(rows),
            "cpu": [time.process_time()] * len(rows),
        }


def ray_data_rows(units: list[Files], settings: Settings) -> Results:
    """Ray Data reads the files, actors get batches of images, and the driver gets rows: the way of its guides."""
    import ray
    from ray.data.context import DataContext

    DataContext.get_current().execution_options.preserve_order = False
    paths = [os.path.abspath(image) for unit in units for image in unit.images]
    rows = ray.data.read_binary_files(paths, include_paths=True).map_batches(
        Rows, fn_constructor_args=(settings,), batch_size=len(units[0].images), num_cpus=0.5,
        compute=ray.data.ActorPoolStrategy(size=PROCESSES),
    )  # fmt: skip
    with Path(settings.output.uri, "rows.jsonl").open("w") as file:
        for row in rows.iter_rows():
            file.write(row["record"] + "\n")
            yield 1, row["pid"], row["cpu"]


DESIGNS: dict[str, Callable] = {each.__name__: each for each in (ray_data_units, ray_data_rows, actor_pool, tasks)}


def run_design(name: str, images: list[str], kill: bool) -> dict:
    """Run a design in this process; return what was measured."""
    parser = argparse.ArgumentParser()
    options.add_detector_arguments(parser, tiles="auto")
    options.add_turns_argument(parser)
    args = parser.parse_args([])
    folder = tempfile.mkdtemp()
    settings = Settings(partial(options.load_detector, args, 1), Output(folder, "parquet"), name, 0.5, args.max_pixels)
    start, first, done, killed = time.perf_counter(), 0.0, 0, 0
    cpu: dict[int, float] = {}
    error = ""
    with begin(settings.output, name, {}, False), cluster(None, PROCESSES) as actors:
        size = unit_size(len(images), actors)
        units = [Files(tuple(images[at : at + size])) for at in range(0, len(images), size)]
        try:
            for count, pid, seconds in DESIGNS[name](units, settings):
                done += count
                if not first:
                    first, at_first = time.perf_counter() - start, done
                cpu[pid] = seconds
                if kill and not killed and done >= KILL_AFTER * size:
                    os.kill(pid, signal.SIGKILL)
                    killed = pid
        except Exception as raised:
            error = f"{type(raised).__name__}: {str(raised).splitlines()[-1][:200]}"
    seconds = time.perf_counter() - start
    if name == "ray_data_rows":
        records = [json.loads(line) for line in Path(folder, "rows.jsonl").read_text().splitlines()]
        rows, failed, names = len(records), sum("error" in each for each in records), len({each["image"] for each in records})
    else:
        earlier = scan(settings.output, FACES, WORK.count)
        rows, failed, names = earlier.counts.totals["images"], earlier.counts.totals["failed"], len(earlier.names)
    shutil.rmtree(folder)
    return {
        "design": name, "seconds": round(seconds, 1), "first": round(first, 1), "rate": round(done / seconds, 2),
        "later_rate": round((done - at_first) / (seconds - first), 2) if first else 0,
        "cpu_per_image": round(sum(cpu.values()) / max(done, 1), 3), "rows": rows, "failed": failed, "names": names,
        "killed": killed, "processes": len(cpu), "error": error,
    }  # fmt: skip


def run_script(images: list[str]) -> dict:
    """Run detect_mask_image.py in a process of its own."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "lines.jsonl")
        command = [sys.executable, "detect_mask_image.py", "-i", *images, "--jsonl", str(lines), "--no-show"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # exit code 1 if a file is not an image
        rows = len(lines.read_text().splitlines())
    seconds, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "design": "image script", "seconds": round(seconds, 1), "rate": round(len(images) / seconds, 2),
        "cpu_per_image": round((usage.ru_utime + usage.ru_stime) / len(images), 3), "rows": rows,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("folder", type=Path, help="images")
    parser.add_argument("--limit", type=options.positive_int, default=500, metavar="N", help="number of images")
    parser.add_argument("--turns", type=options.positive_int, default=1, metavar="N", help="number of turns")
    parser.add_argument("--designs", nargs="+", choices=[*DESIGNS, "script"], default=["script", *DESIGNS], help="what to run")
    parser.add_argument("--kill", action="store_true", help="kill a process that detects after some results")
    parser.add_argument("--bad", type=options.natural_int, default=3, metavar="N", help="files that are no images, among them")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # one run, in this process
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = sorted(map(str, args.folder.iterdir()))[: args.limit - args.bad]
        bad = [Path(folder, f"bad{number}.jpg") for number in range(args.bad)]
        for path in bad:
            path.write_bytes(b"no image")
        images[len(images) // 2 : len(images) // 2] = map(str, bad)
        if args.here:
            (name,) = args.designs
            print(json.dumps(run_script(images) if name == "script" else run_design(name, images, args.kill)), flush=True)
            return 0
    for turn in range(args.turns):
        for name in args.designs if turn % 2 == 0 else reversed(args.designs):
            command = [*sys.argv[1:], "--here", "--designs", name]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.archive_designs", *command], stdout=subprocess.PIPE, text=True
            )
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            print(lines[-1] if lines else json.dumps({"design": name, "code": done.returncode}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
