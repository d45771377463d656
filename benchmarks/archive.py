#!/usr/bin/env python3
"""Measure detect_mask_archive.py: processes that are killed, speed, memory, and what the driver needs. Linux, extra "archive".

  python -m benchmarks.archive kills -i photos/ --times 10            kill workers, nodes, drivers and heads of two nodes
  python -m benchmarks.archive rate -i photos/ --cores 1 2            images per second, in turns with detect_mask_image.py
  python -m benchmarks.archive rate -i photos/ --mixed                the same, of sizes from 64 px to 12 megapixels
  python -m benchmarks.archive memory -i photos/ --images 20000       memory of each process over links to the photos
  python -m benchmarks.archive names --images 1000000                 the driver's memory and the rate without any detection

Each prints Markdown, or a line per run. docs/archives.md has the results.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from facemask.cli import options
from facemask.cli.run import DONE, FAILED, run
from facemask.errors import InputError

ROOT = Path(__file__).parents[1]
ACTOR = "MapWorker"  # in the title of an actor's process
POLL = 0.1  # s between two looks at a run
WARM_UP = 0.15  # part of the images that is left out of the steady rate
TIMEOUT = 900  # s that a run may take
SIDES = (64, 160, 320, 640, 1024, 1600, 2560, 4000)  # px, longest side, of images of mixed sizes: the last of 12 megapixels
KINDS = ("worker", "node", "driver", "head")
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True)
class Process:
    """A process of this machine, by /proc."""

    pid: int
    parent: int
    command: str
    seconds: float  # CPU time
    memory: float  # MB, resident


def processes() -> dict[int, Process]:
    """Return all processes of this machine by their id."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended
            continue
        pid = int(folder.name)
        seconds = (int(stat[11]) + int(stat[12])) / TICK
        found[pid] = Process(pid, int(stat[1]), command, seconds, int(stat[21]) * PAGE / 1e6)
    return found


def family(pid: int) -> list[Process]:
    """Return a process and those that it started, directly or not."""
    every = processes()
    kin = {pid}
    while more := {each.pid for each in every.values() if each.parent in kin} - kin:
        kin |= more
    return [every[each] for each in kin if each in every]


def archive_command(source: Path, output: Path, *more: str) -> list[str]:
    """Return the command that detects in `source`."""
    return [sys.executable, str(ROOT / "detect_mask_archive.py"), "-i", str(source), "-o", str(output), *more]


def start(command: Sequence[str], log: Path) -> subprocess.Popen:
    """Start a command in the project's folder; what it prints is added to `log`."""
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)


def finish(process: subprocess.Popen, log: Path) -> None:
    """Wait for a run. Raises InputError if it fails, or takes longer than TIMEOUT."""
    try:
        code = process.wait(TIMEOUT)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise InputError(f"{log}: the run takes more than {TIMEOUT} s; see its messages") from error
    if code:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise InputError(f"{log}: exit code {code} ({''.join(last)}); see its messages")


# Kills


def results(output: Path) -> tuple[list[str], str]:
    """Return the rows of an output as sorted JSON lines, and the text of its summary."""
    from facemask.archive.parts import Output
    from facemask.archive.tables import FACES

    rows = [json.dumps(record) for record in Output(str(output), "parquet").records(FACES)]
    return sorted(rows), (output / "summary.json").read_text()


class TwoNodes:
    """A Ray cluster of two nodes with one core each, on this machine. `settings` are Ray's own, of its head."""

    def __init__(self, **settings: int) -> None:
        os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # as `cluster` sets them
        self.settings = settings
        self.open()

    def open(self) -> None:
        from ray.cluster_utils import Cluster

        head = self.node() | {"_system_config": self.settings}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.second = self.cluster.add_node(**self.node())

    @staticmethod
    def node() -> dict:
        return {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}

    @property
    def address(self) -> str:
        return self.cluster.address

    def kill_node(self) -> None:
        """Kill the second node's raylet with SIGKILL, as if the machine was lost; its workers end with it."""
        self.second.kill_raylet(check_alive=False)

    def kill_head(self) -> None:
        """Kill the control service and the raylet of the first node."""
        self.cluster.head_node.kill_gcs_server(check_alive=False)
        self.cluster.head_node.kill_raylet(check_alive=False)

    def renew(self, kind: str) -> None:
        """Start again what was killed."""
        if kind == "node":
            self.cluster.remove_node(self.second, allow_graceful=False)
            self.second = self.cluster.add_node(**self.node())
        elif kind == "head":
            self.close()
            self.open()

    def close(self) -> None:
        self.cluster.shutdown()


def kill_worker(nodes: TwoNodes) -> bool:
    """Kill an actor of a cluster at random with SIGKILL; False if no actor runs."""
    raylets = [each for node in nodes.cluster.list_all_nodes() for each in node.all_processes["raylet"]]
    kin = [each for raylet in raylets for each in family(raylet.process.pid)]
    actors = [each for each in kin if each.command.startswith("ray::") and ACTOR in each.command]
    if not actors:
        return False
    os.kill(random.choice(actors).pid, signal.SIGKILL)
    return True


def measure_kills(args: argparse.Namespace) -> int:
    """Run over the images again and again, each time with one process killed; compare with an undisturbed run."""
    random.seed(args.seed)
    with tempfile.TemporaryDirectory(prefix="archive-kills-") as name:
        work, nodes = Path(name), TwoNodes()
        log = work / "log.txt"
        try:
            source = link_photos(args.input, work / "in", args.images)
            more = ["--batch-size", "4"]
            begin = time.monotonic()
            finish(start(archive_command(source, work / "whole", *more, "--address", nodes.address), log), log)
            length = time.monotonic() - begin
            expected = results(work / "whole")
            print(f"undisturbed: {len(expected[0])} rows in {length:.0f} s", flush=True)
            wrong, count = 0, 0
            while count < args.times * len(args.kinds):
                kind = args.kinds[count % len(args.kinds)]
                output = work / f"out{count}"
                moment = random.uniform(0.05, 0.95) * length
                killed = one_kill(kind, nodes, archive_command(source, output, *more), log, partial(time.sleep, moment))
                if killed is None:
                    continue
                count += 1
                same = results(output) == expected
                wrong += not same
                left = [path.name for path in output.rglob("*") if path.suffix == ".partial" or path.parent.name == "attempts"]
                print(f"{count} {kind} {killed} {'equal' if same else 'DIFFERENT'} left: {left}", flush=True)
                if same:
                    shutil.rmtree(output)
                else:
                    shutil.copytree(output, Path(tempfile.mkdtemp(prefix="archive-different-")), dirs_exist_ok=True)
            print(f"{count} runs killed, {count - wrong} equal to the undisturbed one")
        finally:
            nodes.close()
    return FAILED if wrong else DONE


def one_kill(kind: str, nodes: TwoNodes, command: list[str], log: Path, wait: Callable[[], None]) -> str | None:
    """Run a command, kill a process of one kind after `wait`, and continue; None if the run ended before.

    Returns what happened, for people.
    """
    output = Path(command[command.index("-o") + 1])
    begin = time.monotonic()
    process = start([*command, "--address", nodes.address], log)
    wait()
    while kind == "worker" and process.poll() is None and not kill_worker(nodes):
        time.sleep(POLL)
    if process.poll() is not None:
        shutil.rmtree(output)
        return None
    kill: dict[str, Callable[[], None]] = {"node": nodes.kill_node, "driver": process.kill, "head": nodes.kill_head}
    if kind in kill:
        kill[kind]()
    moment = time.monotonic()
    done = len(list(output.rglob("*.parquet")))
    code = process.wait(TIMEOUT)
    text = f"after {moment - begin:.1f} s with {done} parts: exit code {code} {time.monotonic() - moment:.0f} s later"
    nodes.renew(kind)
    if code:
        finish(start([*command, "--address", nodes.address, "--resume"], log), log)
        text += ", continued"
    return text


# Rates


def link_photos(folder: Path, place: Path, count: int, seed: int = 0) -> Path:
    """Fill a folder with `count` links to the photos of another, in an order drawn at random, again and again."""
    photos = sorted(path.absolute() for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not photos:
        raise InputError(f"{folder}: no photos in it; name a folder of JPEG or PNG files")
    place.mkdir()
    order: list[Path] = []
    while len(order) < count:
        order += random.Random(seed + len(order)).sample(photos, len(photos))
    for number, photo in enumerate(order[:count]):
        (place / f"{number:06d}{photo.suffix}").symlink_to(photo)
    return place


def resize_photos(folder: Path, place: Path, count: int) -> Path:
    """Write `count` photos of another folder, scaled to SIDES in turn, in an order drawn at random."""
    import cv2

    links = link_photos(folder, place.with_name("links"), count)
    place.mkdir()
    for number, link in enumerate(sorted(links.iterdir())):
        image = cv2.imread(str(link))
        side = random.Random(number).choice(SIDES)
        scale = side / max(image.shape[:2])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        if side == SIDES[-1]:
            size = (4000, 3000)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        cv2.imwrite(str(place / f"{number:06d}.jpg"), cv2.resize(image, size, interpolation=way))
    return place


@dataclass
class Timing:
    """What a run took."""

    seconds: float  # from its start to its end
    steady: float  # images per second after WARM_UP of them
    cpu: float  # s, of all its processes


def timed(command: list[str], log: Path, count_rows: Callable[[], int], images: int) -> Timing:
    """Run a command, and follow how many rows it has written."""
    begin = time.monotonic()
    process = start(command, log)
    first = last = None
    cpu: dict[int, float] = {}
    while process.poll() is None:
        time.sleep(POLL)
        rows = count_rows()
        if last is None or rows > last[1]:
            last = (time.monotonic(), rows)
            if first is None and rows >= WARM_UP * images:
                first = last
        cpu |= {each.pid: each.seconds for each in family(process.pid)}
    seconds = time.monotonic() - begin
    finish(process, log)
    if first is None or last is None or count_rows() != images:
        raise InputError(f"{log}: {count_rows()} rows, not {images}; see its messages")
    steady = (last[1] - first[1]) / (last[0] - first[0]) if last[0] > first[0] else float("nan")
    return Timing(seconds, steady, sum(cpu.values()))


class Lines:
    """Counts the lines of JSON files in a folder; each byte is read once, also if a file gets another name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.read: dict[int, int] = {}  # bytes, by the file's number

    def __call__(self) -> int:
        for path in self.folder.rglob("*.jsonl"):
            with path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                file.seek(self.read.get(number, 0))
                data = file.read()
            self.read[number] = self.read.get(number, 0) + len(data)
            self.count += data.count(b"\n")
        return self.count


def measure_rate(args: argparse.Namespace) -> int:
    """Run the image script and the archive script in turns over the same images and cores."""
    print("| cores | turn | image script, s | archive, s | rate of all | steady rate, images/s | steady ratio | CPU time ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="archive-rate-") as name:
        work = Path(name)
        make = resize_photos if args.mixed else link_photos
        source, log = make(args.input, work / "in", args.images), work / "log.txt"
        one = link_photos(source, work / "one", 1)
        for cores in args.cores:
            pin = ["taskset", "-c", f"0-{cores - 1}"]
            turns: list[tuple[Timing, Timing]] = []
            starts: list[float] = []
            for turn in range(args.turns):
                place = work / f"{cores}-{turn}"
                lines, output = place.with_suffix(".script") / "faces.jsonl", place
                lines.parent.mkdir()
                script = [
                    sys.executable,
                    str(ROOT / "detect_mask_image.py"),
                    "-i",
                    str(source),
                    "--jsonl",
                    str(lines),
                    "--no-show",
                ]
                images = timed([*pin, *script], log, Lines(lines.parent), args.images)
                more = ["--actors", str(cores), "--format", "jsonl"]
                archive = timed([*pin, *archive_command(source, output, *more)], log, Lines(output), args.images)
                begin = time.monotonic()
                finish(start([*pin, *archive_command(one, place.with_suffix(".one"), *more)], log), log)
                starts.append(time.monotonic() - begin)
                turns.append((images, archive))
                print(rate_row(cores, str(turn + 1), images, archive), flush=True)
            middle = [
                Timing(*(median(getattr(turn[side], name) for turn in turns) for name in ("seconds", "steady", "cpu")))
                for side in (0, 1)
            ]
            print(rate_row(cores, "medians", *middle))
            whole = median(images.seconds / archive.seconds for images, archive in turns)
            steady = median(archive.steady / images.steady for images, archive in turns)
            print(
                f"| {cores} | median of ratios | | | {whole:.2f} | | {steady:.2f} | one image: {median(starts):.1f} s |",
                flush=True,
            )
    return DONE


def rate_row(cores: int, turn: str, images: Timing, archive: Timing) -> str:
    """Return a row of the table of rates."""
    return (
        f"| {cores} | {turn} | {images.seconds:.1f} | {archive.seconds:.1f} | {images.seconds / archive.seconds:.2f} "
        f"| {images.steady:.1f}, {archive.steady:.1f} | {archive.steady / images.steady:.2f} | {archive.cpu / images.cpu:.2f} |"
    )


# Memory


@dataclass
class Memory:
    """The memory of a run's processes, by time."""

    samples: list[tuple[float, int, float, list[float]]] = field(default_factory=list)  # s, rows, driver, actors in MB

    def add(self, seconds: float, rows: int, kin: list[Process], driver: int) -> None:
        actors = [each.memory for each in kin if each.command.startswith("ray::") and ACTOR in each.command]
        mine = next((each.memory for each in kin if each.pid == driver), 0.0)
        self.samples.append((seconds, rows, mine, sorted(actors)))


def measure_memory(args: argparse.Namespace) -> int:
    """Run over many links, and sample the memory of the driver and of each actor."""
    memory = Memory()
    print("| s | images | driver, MB | actors, MB |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="archive-memory-") as name:
        work = Path(name)
        make = resize_photos if args.mixed else link_photos
        source, log = make(args.input, work / "in", args.images), work / "log.txt"
        more = ["--format", "jsonl", "--actors", str(args.actors)]
        rows, begin = Lines(work / "out"), time.monotonic()
        process = start(archive_command(source, work / "out", *more), log)
        while process.poll() is None:
            memory.add(time.monotonic() - begin, rows(), family(process.pid), process.pid)
            seconds, count, driver, actors = memory.samples[-1]
            print(f"| {seconds:.0f} | {count} | {driver:.0f} | {', '.join(f'{each:.0f}' for each in actors)} |", flush=True)
            for _ in range(round(args.every / POLL)):
                if process.poll() is None:
                    time.sleep(POLL)
        finish(process, log)
    return DONE


# Names


class NoDetector:
    """In the place of a detector: no face in any image, without reading it."""

    def detect_file(self, source: object, confidence: float = 0.5, *, max_pixels: int = 0) -> object:
        from facemask.types import FileResult

        return FileResult(1000, 1000, [], False, None, [])


def measure_names(args: argparse.Namespace) -> int:
    """Run over names of files without detection: what the driver holds, and what Ray and the writing take."""
    from facemask.archive.images import WORK
    from facemask.archive.job import cluster, run_units, unit_size
    from facemask.archive.parts import Output, scan
    from facemask.archive.runs import begin
    from facemask.archive.sources import cut_units, find_sources
    from facemask.archive.worker import Settings

    def note(text: str, start: float) -> None:
        lines = Path("/proc/self/status").read_text()
        now, most = (int(re.search(rf"{name}:\s+(\d+)", lines)[1]) / 1e3 for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
        row = f"| {text} | {time.monotonic() - start:.1f} | {now:.0f} | {most:.0f} |"
        print(row, file=sys.__stdout__, flush=True)  # Ray has the other

    print("| step | s | driver's memory, MB | at most |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="archive-names-") as name:
        work = Path(name)
        listed = work / "list.txt"
        listed.write_text("".join(f"/archive/2026/camera-{n % 997:03d}/image-{n:010d}.jpg\n" for n in range(args.images)))
        start = time.monotonic()
        note("start", start)
        found = find_sources([str(listed)], Counter())
        note(f"{len(found.images)} names read", start)
        output = Output(str(work / "out"), "parquet")
        settings = Settings(NoDetector, output, "names", 0.5, 0)  # type: ignore[arg-type]
        with begin(output, "names", {}, False), cluster(None, args.actors) as actors:
            units = cut_units(found, args.batch_size or unit_size(len(found.images), actors), (), ())
            note(f"{len(units)} units, Ray started", start)
            count = 0
            for result in run_units(units, WORK.worker, settings, actors, "cpu"):
                count += result.counts.totals["images"]
            note(f"{count} rows written", start)
        earlier = scan(output, WORK.table, WORK.count)
        note(f"{len(earlier.names)} rows read to continue", start)
    return DONE


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="WHAT")

    def add(name: str, measure: Callable, images: int, what: str, *, photos: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, formatter_class=options.HelpFormatter)
        command.set_defaults(measure=measure)
        if photos:
            command.add_argument("-i", "--input", type=Path, required=True, metavar="FOLDER", help="photos to link to")
        command.add_argument("--images", type=options.positive_int, default=images, metavar="N", help="images of a run")
        return command

    kills = add("kills", measure_kills, 60, "kill processes at random moments")
    kills.add_argument("--times", type=options.positive_int, default=8, metavar="N", help="kills of each kind")
    kills.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="what is killed")
    kills.add_argument("--seed", type=int, default=0, metavar="N", help="of the random moments")
    rate = add("rate", measure_rate, 400, "images per second")
    rate.add_argument("--cores", type=options.positive_int, nargs="+", default=[1, 2], metavar="N", help="cores, and actors")
    rate.add_argument("--turns", type=options.positive_int, default=3, metavar="N", help="runs of each script")
    memory = add("memory", measure_memory, 20_000, "memory over many images")
    memory.add_argument("--every", type=options.positive_int, default=30, metavar="S", help="seconds between samples")
    names = add("names", measure_names, 1_000_000, "the driver and Ray without detection", photos=False)
    names.add_argument("--batch-size", type=options.positive_int, metavar="N", help="images of a unit of work")
    for command in (memory, names):
        command.add_argument("--actors", type=options.positive_int, default=1, metavar="N", help="processes")
    for command in (rate, memory):
        command.add_argument("--mixed", action="store_true", help="photos scaled to sizes from 64 px to 12 megapixels")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run(args.measure, args)


if __name__ == "__main__":
    sys.exit(main())
