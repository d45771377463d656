#!/usr/bin/env python3
"""Track the faces in a video, live or from a file, and report who wears a mask.

  python detect_mask_video.py                                the first webcam, in a window; q or Esc ends
  python detect_mask_video.py -i street.mp4 -o out.mp4       a file, annotated
  python detect_mask_video.py -i rtsp://camera/stream --serve 8000 --events events.jsonl
                                                             a guard desk: watch at http://127.0.0.1:8000/
  python detect_mask_video.py -i rtsp://door/1 rtsp://till/1 --serve 8000
                                                             several cameras at once
  python detect_mask_video.py -i videos/ -o annotated/       several files, one after the other
  ffmpeg -i … -c copy -f matroska - | python detect_mask_video.py -i -
                                                             whatever FFmpeg reads

Each face keeps its track ID while it is visible and through short gaps, and a label that changes only on clear evidence.
Every frame of a file is processed; of a camera or stream the newest frame is, and it is opened again if it drops.
Outputs are finished on q, a closed window, Ctrl-C, SIGTERM, the end of the source and errors alike. Exit code: 0 done,
1 if a source, the model or an output failed, 130 after Ctrl-C, 143 after SIGTERM, 2 for a wrong command line.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from facemask.cli import options, video_options
from facemask.cli.run import DONE, FAILED, run, stop_on_signals

if TYPE_CHECKING:
    from facemask.io.collect import Collector

FIRST_CAMERA = "0"

logger = logging.getLogger("facemask")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    video_options.add_source_arguments(parser, zone)
    options.add_detector_arguments(parser, tiles="off")
    video_options.add_output_arguments(parser)
    return parser


def zone(text: str):
    """Parse [NAME[@SOURCE]:]x1,y1,x2,y2,… (an argparse type); returns a Zone."""
    from facemask.video.zones import Zone

    try:
        return Zone.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, received {text!r}") from error


def detect(args: argparse.Namespace) -> int:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.parallel import thread_budget
    from facemask.video.association import preload
    from facemask.video.find_sources import find_sources, is_waiting, make_jobs
    from facemask.video.report import Report
    from facemask.video.session import Session
    from facemask.video.sources import open_sources, stop_sources

    jobs = make_jobs(find_sources(args.input or [FIRST_CAMERA], args.output), args.output, args.zone)
    show = check_outputs(args, jobs)
    preload()
    groups = [jobs] if is_waiting(jobs[0].source) else [[job] for job in jobs]  # at once, or one after the other
    report = Report(len(jobs), len(groups), args.max_frames)
    signals: list[int] = []
    with ExitStack() as stack:
        stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
        shared = Shared(args, stack, show)
        for group in groups:
            with report.failure_allowed():
                with ExitStack() as group_stack:
                    names = [job.source for job in group]
                    sources = open_sources(names, args.width, args.stride, args.rate, args.reconnect, args.max_pixels)
                    for source in sources:
                        group_stack.enter_context(source)
                    signals = group_stack.enter_context(stop_on_signals(partial(stop_sources, sources)))
                    # A live frame is done before the next is begun, with all cores: the soonest result counts.
                    is_alone = len(sources) == 1 and sources[0].is_live
                    workers, threads = (1, 0) if is_alone else thread_budget()
                    shared.load(threads)
                    channels = shared.open_channels(group_stack, sources, group)
                    Session(channels, shared.detect_faces, shared.classify, workers, args.blur).run(args.max_frames)
                report.add(channels, shared.is_stopped(signals))
            if shared.is_stopped(signals):
                break
        if signals:
            shared.services.hurry()

    for path in (args.output, args.jsonl, args.events, args.snapshots, args.report):
        if path and report.frames:
            logger.info("saved to %s", path)
    if shared.collector:
        logger.info(shared.collector.summary())
    has_failed = report.finish(shared.is_stopped(signals))
    return 128 + signals[0] if signals else FAILED if has_failed else DONE


def check_outputs(args: argparse.Namespace, jobs: Sequence) -> bool:
    """Check that all outputs can be written, before anything is loaded; return whether to open a window."""
    from facemask.io.outputs import check_outputs, check_writable, make_folder
    from facemask.video.display import wants_window
    from facemask.video.writer import check_video_output

    show = wants_window(args.show)
    if args.show is None and not show:
        logger.info("no display: no window%s", "" if args.serve else "; --serve 8000 shows the video to a browser")
    videos = [job.video for job in jobs if job.video]
    for video in videos:
        check_video_output(video)
    inputs = [path for job in jobs for path in job.files]
    check_outputs([*videos, *filter(None, (args.jsonl, args.events, args.report))], inputs)
    if args.snapshots:
        make_folder(args.snapshots)
        check_writable(args.snapshots / "snapshot.jpg")
    return show


class Shared:
    """What all sources of a run share: the networks, the page, the window, and the files that have lines of each."""

    def __init__(self, args: argparse.Namespace, stack: ExitStack, show: bool) -> None:
        """Open what must not fail later; the rest is opened with the first source (`load`). `stack` closes all of it."""
        from facemask.video.display import Window
        from facemask.video.services import Services

        self._args, self._stack = args, stack
        page = stack.enter_context(open_page(args)) if args.serve else None
        self.services = stack.enter_context(
            Services(args.events, args.snapshots, args.on_event, args.notify, args.mqtt, page, args.report)
        )
        self._window = Window() if show else None
        self._is_loaded = False
        self.collector: Collector | None = None

    def load(self, threads: int) -> None:
        """Load the networks, which compute with `threads` threads, and open the files, unless that was done."""
        from facemask.io.json_lines import json_lines
        from facemask.video.session import face_detection

        if self._is_loaded:
            return
        args, enter = self._args, self._stack.enter_context
        self._detector = options.load_detector(args, threads)
        self.classify = self._detector.classifier.classify_images
        self.detect_faces = face_detection(self._detector.faces, args.confidence, args.blur, args.detector_size)
        self._lines = enter(json_lines(args.jsonl)) if args.jsonl else None
        self.collector = options.open_collector(args, self._detector.classifier.info.labels)
        self._is_loaded = True

    def is_stopped(self, signals: Sequence[int]) -> bool:
        """Return whether a signal or the window has ended the run."""
        return bool(signals) or (self._window is not None and self._window.is_closed)

    def open_channels(self, stack: ExitStack, sources: Sequence, jobs: Sequence) -> list:
        """Return a channel for each open source, in the order of `jobs`; `stack` closes their outputs."""
        from facemask.video.grid import Grid
        from facemask.video.outputs import ProgressBar
        from facemask.video.sources import stop_sources

        names = [source.name for source in sources]
        frames = [min(filter(None, (source.frame_count, self._args.max_frames)), default=0) for source in sources]
        bar = stack.enter_context(ProgressBar(sum(frames) if all(frames) else None))
        window = None
        if self._window:
            self._window.on_close = partial(stop_sources, sources)
            window = Grid(self._window.show, names, captions=True)
        return [
            self._open_channel(stack, source, job, window and window.tiles[index], bar)
            for index, (source, job) in enumerate(zip(sources, jobs, strict=True))
        ]

    def _open_channel(self, stack: ExitStack, source, job, window_tile, bar):
        from facemask.video.outputs import FrameRecords, Statistics, VideoFile, WindowOutput
        from facemask.video.session import Channel
        from facemask.video.tracker import MaskTracker
        from facemask.video.writer import VideoSink
        from facemask.video.zones import ZoneFilter

        args, name, statistics = self._args, source.name, Statistics()
        tracker = MaskTracker.for_detector(self._detector, float(source.output_fps), args.confidence)
        shared, events = self.services.outputs_of(source, job.prefix, self._detector.classifier.info.labels, statistics)
        sound = source.open_sound() if job.video and args.audio else None
        outputs = [
            FrameRecords(self._lines, name) if self._lines else None,
            VideoFile(VideoSink(job.video, source.output_fps, source.is_live, sound)) if job.video else None,
            *shared,
            self._collecting_output(name),
            WindowOutput(window_tile, statistics) if window_tile else None,
        ]
        wanted = [stack.enter_context(output) for output in outputs if output is not None]
        return Channel(source, tracker, [*wanted, bar], ZoneFilter(job.zones, name), statistics, events)

    def _collecting_output(self, name: str):
        if not self.collector:
            return None
        from facemask.video.collecting import CollectingOutput

        return CollectingOutput(self.collector, name)


def open_page(args: argparse.Namespace):
    """Return the server for --serve."""
    from facemask.video import live_server  # here, as it takes long to import

    return live_server.open_page(args.serve, args.password, args.tls_cert, args.tls_key)


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    video_options.check_page_arguments(parser, args)
    if args.collect and args.blur:
        parser.error("--collect cannot be used with --blur: it writes frames as they are, faces included")
    return run(detect, args)


if __name__ == "__main__":
    sys.exit(main())
