#!/usr/bin/env python3
"""Measure how many frames per second each of several cameras gets in one run.

  python -m benchmarks.cameras                            1, 2, 4 and 8 cameras of 10 frames per second
  python -m benchmarks.cameras --video street.mp4 --count 1 4 --rate 5

prints a Markdown table. The cameras are motion JPEG over HTTP from this process, each sending the frames of a video again
and again, from places that differ; detect_mask_video.py runs beside it, as a user starts it, and writes its records alone.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2

from facemask.cli import options
from facemask.cli.run import DONE, run
from facemask.errors import InputError

ROOT = Path(__file__).parents[1]
JPEG_QUALITY = 90
WARM_UP = 5.0  # s of each camera's time that are left out: the first faces are classified often
HEAD = (
    "| cameras | frames/s of each camera (the slowest one) | part of the frames sent | frames/s together | cores busy | memory "
    "|\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Measured:
    """What a run with several cameras did."""

    rates: list[float]  # frames per second processed, of each camera
    cores: float  # CPU time by time, from the start to the end of the program
    memory: float  # MB, at most

    def to_markdown(self, rate: float) -> str:
        """Return a row of the table; each camera sent `rate` frames per second."""
        mean = sum(self.rates) / len(self.rates)
        return (
            f"| {len(self.rates)} | {mean:.1f} ({min(self.rates):.1f}) | {mean / rate:.0%} | {sum(self.rates):.1f} "
            f"| {self.cores:.1f} | {self.memory:.0f} MB |"
        )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("--video", type=Path, metavar="FILE", help="what the cameras see (default: a generated video)")
    parser.add_argument("--count", type=options.positive_int, nargs="+", default=[1, 2, 4, 8], metavar="N", help="cameras")
    parser.add_argument("--rate", type=options.frame_rate, default=10.0, metavar="FPS", help="frames per second of a camera")
    parser.add_argument("--seconds", type=options.positive_int, default=30, help="time to measure, for each number of cameras")
    parser.add_argument("--width", type=options.positive_int, default=640, metavar="PX", help="scale wider frames down to it")
    return parser


def measure(args: argparse.Namespace) -> int:
    from examples.make_video import make_video
    from facemask.video.sources import open_source

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        video = args.video or make_video(work / "people.mp4")
        with open_source(str(video), width=args.width) as source:
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            jpegs = [cv2.imencode(".jpg", frame.image, quality)[1].tobytes() for frame in source.frames()]
        with Cameras(jpegs, args.rate, max(args.count)) as cameras:
            print(HEAD, flush=True)
            for count in args.count:
                measured = measure_cameras(cameras.urls[:count], args.seconds, work / f"{count}.jsonl")
                print(measured.to_markdown(args.rate), flush=True)
    return DONE


def measure_cameras(urls: Sequence[str], seconds: float, jsonl: Path) -> Measured:
    """Process cameras for `seconds` after the first frames. Raises InputError if that fails."""
    command = [sys.executable, "detect_mask_video.py", "--no-show", "--jsonl", str(jsonl), "-i", *urls]
    with tempfile.TemporaryFile("w+") as output:
        begin = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        start, partial = None, jsonl.with_stem(f"{jsonl.stem}.partial")
        while start is None or time.monotonic() - start < WARM_UP + seconds:
            time.sleep(0.1)
            if start is None and partial.exists() and partial.stat().st_size:
                start = time.monotonic()
            if process.poll() is not None:
                output.seek(0)
                raise InputError("detect_mask_video.py: failed; its last lines:\n" + "\n".join(output.read().splitlines()[-9:]))
        process.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - begin
    times: dict[str, list[float]] = {}
    for line in jsonl.read_text().splitlines():
        record = json.loads(line)
        times.setdefault(record["source"], []).append(record["time"])
    rates = [rate_of(each) for each in times.values()]
    unit = 1e6 if sys.platform == "darwin" else 1e3  # ru_maxrss is in bytes there, in kilobytes elsewhere
    return Measured(rates, (usage.ru_utime + usage.ru_stime) / wall, usage.ru_maxrss / unit)


def rate_of(times: Sequence[float]) -> float:
    """Return the frames per second of the frames at `times` in s, without the first `WARM_UP` seconds; 0 without frames."""
    later = [time for time in times if time >= WARM_UP]
    return (len(later) - 1) / (later[-1] - later[0]) if len(later) > 1 else 0.0


class Cameras(AbstractContextManager):
    """Cameras on the network, which send the same JPEG images again and again, from places that differ."""

    def __init__(self, jpegs: Sequence[bytes], rate: float, count: int) -> None:
        """`rate` is in frames per second; `urls` has `count` of them."""
        start = time.monotonic()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
                self.end_headers()
                place = len(jpegs) * int(self.path.rpartition("/")[2]) // count
                number = round((time.monotonic() - start) * rate)
                while True:
                    time.sleep(max(start + number / rate - time.monotonic(), 0))
                    jpeg = jpegs[(place + number) % len(jpegs)]
                    head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                    self.wfile.write(head + jpeg + b"\r\n")
                    number += 1

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # readers go

        self._server = Server(("127.0.0.1", 0), Handler)
        self.urls = [f"http://127.0.0.1:{self._server.server_port}/{number}" for number in range(count)]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


if __name__ == "__main__":
    sys.exit(run(measure, build_parser().parse_args()))
