#!/usr/bin/env python3
"""Track the faces in a video, live or from a file, and report who wears a mask.

  python detect_mask_video.py                                the first webcam, in a window; q or Esc ends
  python detect_mask_video.py -i street.mp4 -o out.mp4       a file, annotated
  python detect_mask_video.py -i rtsp://camera/stream --serve 8000 --events events.jsonl
                                                             a guard desk: watch at http://127.0.0.1:8000/
  ffmpeg -i … -c copy -f matroska - | python detect_mask_video.py -i -
                                                             whatever FFmpeg reads

Each face keeps its track ID while it is visible and through short gaps, and a label that changes only on clear evidence.
Every frame of a file is processed; of a camera or stream the newest frame is, and it is opened again if it drops.
Outputs are finished on q, a closed window, Ctrl-C, SIGTERM, the end of the source and errors alike. Exit code: 0 done,
1 if the source, the model or an output failed, 130 after Ctrl-C, 143 after SIGTERM, 2 for a wrong command line.
"""

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, FAILED, run, stop_on_signals

FIRST_CAMERA = "0"

logger = logging.getLogger("facemask")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    source = parser.add_argument_group("source")
    source.add_argument(
        "-i",
        "--input",
        nargs="+",
        action="extend",
        metavar="SOURCE",
        help="a camera's index, a video file, a folder or glob of videos or images, frame_%%04d.jpg, a stream's URL, - (standard "
        "input); several files run one after the other, several cameras and streams at once (default: 0)",
    )
    source.add_argument(
        "--width", type=options.positive_int, metavar="PX", help="ask a camera for that width; scale wider frames down to it"
    )
    source.add_argument("--stride", type=options.positive_int, default=1, metavar="N", help="process every N-th frame only")
    source.add_argument(
        "--rate",
        type=options.frame_rate,
        metavar="FPS",
        help="frames per second of images, of motion JPEG on standard input, and of a source that states none (default: 25)",
    )
    source.add_argument(
        "--reconnect",
        type=options.natural_number,
        default=math.inf,
        metavar="SECONDS",
        help="give up on a camera or stream that has dropped for so long; 0: at once (default: never)",
    )
    source.add_argument(
        "--max-frames", type=options.positive_int, metavar="N", help="stop after that many frames, of each source"
    )
    source.add_argument(
        "--zone",
        type=zone,
        action="append",
        default=[],
        metavar="[NAME:]X1,Y1,X2,Y2,…",
        help="count only people whose face is in this polygon, in fractions of the image (0 to 1) or in pixels, and report no "
        "others; may be repeated; NAME@2: is for the second source alone (default: the whole image)",
    )
    options.add_detector_arguments(parser, tiles="off")
    output = parser.add_argument_group("outputs")
    output.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the annotated video, .mp4 or .mkv; for several sources a folder"
    )
    output.add_argument("--jsonl", type=Path, metavar="FILE", help="write one JSON line per frame, with its faces and tracks")
    output.add_argument(
        "--events",
        type=Path,
        metavar="FILE",
        help="append a JSON line when a person is confirmed as without a mask or with one worn wrong, and when they leave",
    )
    output.add_argument("--snapshots", type=Path, metavar="FOLDER", help="write an image for each event of the first kind")
    output.add_argument(
        "--on-event",
        metavar="CMD",
        help="run a command for each event, which it gets as a JSON line on standard input, as \"sh -c 'cat >> log'\"; "
        "the video does not wait for it",
    )
    output.add_argument(
        "--notify",
        action="append",
        default=[],
        metavar="URL",
        help="send a notification with a snapshot for each event of the first kind; URL as apprise takes it, as mailto://… or "
        "ntfy://… (https://appriseit.com/services/); repeatable",
    )
    output.add_argument(
        "--mqtt",
        metavar="[USER[:PASSWORD]@]HOST[:PORT]/TOPIC",
        help="publish counts and events over MQTT, for Home Assistant too; with mqtts:// before it over TLS",
    )
    output.add_argument("--blur", action="store_true", help="pixelate every detected face in all that is shown and written")
    output.add_argument(
        "--serve",
        type=options.host_and_port,
        metavar="[HOST:]PORT",
        help="show the live video and the counts to browsers (default host: 127.0.0.1, this machine alone)",
    )
    output.add_argument(
        "--password",
        type=options.non_empty,
        metavar="TEXT",
        help="what browsers must give; better in the environment variable FACEMASK_PASSWORD, as other users of this machine see "
        "command lines (default: none for this machine alone, otherwise one that is made and printed)",
    )
    output.add_argument("--tls-cert", type=Path, metavar="FILE", help="encrypt the page, with this certificate in PEM format")
    output.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key (default: in its file)")
    options.add_show_argument(output)
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

    for path in (args.output, args.jsonl, args.events, args.snapshots):
        if path and report.frames:
            logger.info("saved to %s", path)
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
    check_outputs([*videos, *filter(None, (args.jsonl, args.events))], inputs)
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
        self.services = stack.enter_context(Services(args.events, args.snapshots, args.on_event, args.notify, args.mqtt, page))
        self._window = Window() if show else None
        self._is_loaded = False

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
        outputs = [
            FrameRecords(self._lines, name) if self._lines else None,
            VideoFile(VideoSink(job.video, source.output_fps, source.is_live)) if job.video else None,
            *shared,
            WindowOutput(window_tile, statistics) if window_tile else None,
        ]
        wanted = [stack.enter_context(output) for output in outputs if output is not None]
        return Channel(source, tracker, [*wanted, bar], ZoneFilter(job.zones, name), statistics, events)


def open_page(args: argparse.Namespace):
    """Return the server for --serve."""
    from facemask.video import live_server  # here, as it takes long to import

    return live_server.open_page(args.serve, args.password, args.tls_cert, args.tls_key)


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    for option in ("password", "tls_cert", "tls_key"):
        needed = "tls_cert" if option == "tls_key" and args.serve else "serve"
        if getattr(args, option) and not getattr(args, needed):
            parser.error(f"--{option.replace('_', '-')} needs --{needed.replace('_', '-')}")
    return run(detect, args)


if __name__ == "__main__":
    sys.exit(main())
