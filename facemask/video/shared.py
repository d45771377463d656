"""What all sources of a run share: the networks, the page, the window, and the files that have lines of each."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from facemask.detector import MaskDetector
from facemask.io.collect import Collector
from facemask.io.json_lines import JsonLines, json_lines
from facemask.video.collecting import CollectingOutput
from facemask.video.display import Window
from facemask.video.find_sources import Job
from facemask.video.grid import Grid, Tile
from facemask.video.outputs import FrameOutput, FrameRecords, ProgressBar, Statistics, VideoFile, WindowOutput
from facemask.video.services import Services
from facemask.video.session import Channel, face_detection
from facemask.video.sources import VideoSource, stop_sources
from facemask.video.tracker import MaskTracker
from facemask.video.writer import VideoSink
from facemask.video.zones import ZoneFilter


class Shared:
    """What all sources of a run share, opened once; each source gets a `Channel` of it."""

    def __init__(
        self,
        args: argparse.Namespace,
        stack: ExitStack,
        show: bool,
        load_detector: Callable[[int], MaskDetector],
        open_collector: Callable[[Sequence[str]], Collector | None],
    ) -> None:
        """Open what must not fail later; the rest is opened with the first source (`load`). `stack` closes all of it.

        `load_detector` gets the number of threads to compute with, `open_collector` the names of the classes.
        """
        self._args, self._stack = args, stack
        self._load_detector, self._open_collector = load_detector, open_collector
        page = stack.enter_context(_open_page(args)) if args.serve else None
        self.services = stack.enter_context(
            Services(args.events, args.snapshots, args.on_event, args.notify, args.mqtt, page, args.report)
        )
        self._window = Window() if show else None
        self._is_loaded = False
        self.collector: Collector | None = None

    def load(self, threads: int) -> None:
        """Load the networks, which compute with `threads` threads, and open the files, unless that was done."""
        if self._is_loaded:
            return
        args = self._args
        self._detector = self._load_detector(threads)
        self.classify = self._detector.classifier.classify_images
        self.detect_faces = face_detection(self._detector.faces, args.confidence, args.blur, args.detector_size)
        self._lines: JsonLines | None = self._stack.enter_context(json_lines(args.jsonl)) if args.jsonl else None
        self.collector = self._open_collector(self._detector.classifier.info.labels)
        self._is_loaded = True

    def is_stopped(self, signals: Sequence[int]) -> bool:
        """Return whether a signal or the window has ended the run."""
        return bool(signals) or (self._window is not None and self._window.is_closed)

    def open_channels(self, stack: ExitStack, sources: Sequence[VideoSource], jobs: Sequence[Job]) -> list[Channel]:
        """Return a channel for each open source, in the order of `jobs`; `stack` closes their outputs."""
        names = [source.name for source in sources]
        frames = [min(filter(None, (source.frame_count, self._args.max_frames)), default=0) for source in sources]
        bar = stack.enter_context(ProgressBar(sum(frames) if all(frames) else None))
        tiles: Sequence[Tile | None] = [None] * len(sources)
        if self._window:
            self._window.on_close = partial(stop_sources, sources)
            tiles = Grid(self._window.show, names, captions=True).tiles
        return [self._open_channel(stack, *each, bar) for each in zip(sources, jobs, tiles, strict=True)]

    def _open_channel(self, stack: ExitStack, source: VideoSource, job: Job, tile: Tile | None, bar: ProgressBar) -> Channel:
        args, name, statistics = self._args, source.name, Statistics()
        tracker = MaskTracker.for_detector(self._detector, float(source.output_fps), args.confidence)
        shared, events = self.services.outputs_of(source, job.prefix, self._detector.classifier.info.labels, statistics)
        sound = source.open_sound() if job.video and args.audio else None
        outputs: list[FrameOutput | None] = [
            FrameRecords(self._lines, name) if self._lines else None,
            VideoFile(VideoSink(job.video, source.output_fps, source.is_live, sound)) if job.video else None,
            *shared,
            CollectingOutput(self.collector, name) if self.collector else None,
            WindowOutput(tile, statistics) if tile else None,
        ]
        wanted = [stack.enter_context(output) for output in outputs if output is not None]
        return Channel(source, tracker, [*wanted, bar], ZoneFilter(job.zones, name), statistics, events)


def _open_page(args: argparse.Namespace):
    """Return the server for --serve."""
    from facemask.serving.server import open_page
    from facemask.video.live_server import LiveServer  # here, as it takes long to import

    return open_page(LiveServer, args.serve, args.password, args.tls_cert, args.tls_key)
