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
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, FAILED, run, stop_on_signals
from facemask.errors import InputError

logger = logging.getLogger("facemask")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    source = parser.add_argument_group("source")
    source.add_argument(
        "-i",
        "--input",
        default="0",
        metavar="SOURCE",
        help="a camera's index, a video file, images (a folder, a glob, frame_%%04d.jpg), a stream's URL, - (standard input)",
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
    source.add_argument("--max-frames", type=options.positive_int, metavar="N", help="stop after that many frames")
    options.add_detector_arguments(parser, tiles="off")
    output = parser.add_argument_group("outputs")
    output.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the annotated video: .mp4 or .mkv")
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
    output.add_argument("--blur", action="store_true", help="pixelate every detected face in all that is shown and written")
    output.add_argument(
        "--serve",
        type=options.host_and_port,
        metavar="[HOST:]PORT",
        help="show the live video and the counts to browsers (default host: 127.0.0.1, this machine alone)",
    )
    options.add_show_argument(output)
    return parser


def detect(args: argparse.Namespace) -> int:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.parallel import thread_budget
    from facemask.video.association import preload
    from facemask.video.display import Window
    from facemask.video.events import CommandRunner
    from facemask.video.live_server import LiveServer
    from facemask.video.outputs import LivePage, ProgressBar, Statistics, WindowOutput
    from facemask.video.session import Session, face_detection
    from facemask.video.sources import open_source
    from facemask.video.tracker import MaskTracker

    show = check_outputs(args)
    preload()
    with ExitStack() as stack:
        stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
        command = stack.enter_context(CommandRunner(args.on_event)) if args.on_event is not None else None
        server = stack.enter_context(LiveServer(*args.serve)) if args.serve else None
        source = stack.enter_context(open_source(args.input, args.width, args.stride, args.rate, args.reconnect, args.max_pixels))
        signals = stack.enter_context(stop_on_signals(source.stop))
        # Each frame of a live source is done before the next is begun, with all cores: the soonest result counts.
        workers, threads = (1, 0) if source.is_live else thread_budget()
        detector = options.load_detector(args, threads)
        faces = face_detection(detector.faces, args.confidence, args.blur, args.detector_size)
        labels = detector.classifier.info.labels
        tracker = MaskTracker.for_detector(detector, float(source.output_fps), args.confidence)

        statistics = Statistics()
        events = open_events(args, stack, labels, source.is_live, command)
        window = WindowOutput(Window(), statistics, source.stop) if show else None
        page = LivePage(server, statistics) if server else None
        bar = ProgressBar(min(filter(None, (source.frame_count, args.max_frames)), default=None))
        outputs = [statistics, *open_files(args, stack, source), events, window, page, bar]
        wanted = [stack.enter_context(output) for output in outputs if output is not None]
        if server:
            logger.info("watch at %s%s", server.url, "" if server.is_local else " (anyone who reaches this machine can)")
        Session(source, faces, tracker, wanted, workers, args.blur).run(args.max_frames)
        if command and signals:
            command.exit_timeout = command.EXIT_TIMEOUT_ON_SIGNAL

    is_stopped = bool(signals) or (window is not None and window.is_closed)
    if statistics.frames == 0 and not is_stopped:
        hint = "is the camera free, the video whole, an MP4 that is streamed made with -movflags faststart?"
        raise InputError(f"{source.name}: opened, but gave no image; {hint}")
    for path in (args.output, args.jsonl, args.events, args.snapshots):
        if path and statistics.frames:
            logger.info("saved to %s", path)
    logger.info("%s", statistics.summary(is_stopped, source.losses, events.count if events else None))
    if signals:
        return 128 + signals[0]
    if is_stopped or statistics.frames == args.max_frames:
        return DONE
    if source.fault:
        logger.warning("%s %s", source.name, source.fault)
    return FAILED if source.fault or source.dropped_frames else DONE


def check_outputs(args: argparse.Namespace) -> bool:
    """Check that all outputs can be written, before anything is loaded; return whether to open a window."""
    from facemask.io.outputs import check_outputs, check_writable, make_folder
    from facemask.video.display import wants_window
    from facemask.video.writer import check_video_output

    show = wants_window(args.show)
    if args.show is None and not show:
        logger.info("no display: no window%s", "" if args.serve else "; --serve 8000 shows the video to a browser")
    if args.output:
        check_video_output(args.output)
    check_outputs(filter(None, (args.output, args.jsonl, args.events)), [Path(args.input)])
    if args.snapshots:
        make_folder(args.snapshots)
        check_writable(args.snapshots / "snapshot.jpg")
    return show


def open_files(args: argparse.Namespace, stack: ExitStack, source) -> list:
    """Return the outputs for --jsonl and -o that are wanted."""
    from facemask.io.json_lines import json_lines
    from facemask.video.outputs import FrameRecords, VideoFile
    from facemask.video.writer import VideoSink

    records = [FrameRecords(stack.enter_context(json_lines(args.jsonl)))] if args.jsonl else []
    return records + ([VideoFile(VideoSink(args.output, source.output_fps, source.is_live))] if args.output else [])


def open_events(args: argparse.Namespace, stack: ExitStack, labels: Sequence[str], is_live: bool, command):
    """Return the output for --events, --snapshots and --on-event, which has a CommandRunner; None if none is wanted."""
    from facemask.io.json_lines import JsonLines
    from facemask.labels import WITH_MASK, alerts
    from facemask.video.events import EventRecorder

    if not (args.events or args.snapshots or command):
        return None
    if WITH_MASK not in labels:
        logger.warning("the model has no class %s: every label is an event", WITH_MASK)
    receivers = [stack.enter_context(JsonLines(args.events)).write] if args.events else []
    receivers += [command.submit] if command else []
    return EventRecorder(alerts(labels), receivers, args.snapshots, is_live)


def main(argv: list[str] | None = None) -> int:
    return run(detect, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
