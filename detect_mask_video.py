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

from facemask.cli import options, video_options
from facemask.cli.run import DONE, FAILED, run, stop_on_signals

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
    from facemask.video.shared import Shared
    from facemask.video.sources import open_sources, stop_sources

    jobs = make_jobs(find_sources(args.input or [FIRST_CAMERA], args.output), args.output, args.zone)
    show = check_outputs(args, jobs)
    preload()
    groups = [jobs] if is_waiting(jobs[0].source) else [[job] for job in jobs]  # at once, or one after the other
    report = Report(len(jobs), len(groups), args.max_frames)
    signals: list[int] = []
    with ExitStack() as stack:
        stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
        shared = Shared(
            args,
            stack,
            show,
            load_detector=partial(options.load_detector, args),
            open_collector=partial(options.open_collector, args),
        )
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


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    video_options.check_page_arguments(parser, args)
    if args.collect and args.blur:
        parser.error("--collect cannot be used with --blur: it writes frames as they are, faces included")
    return run(detect, args)


if __name__ == "__main__":
    sys.exit(main())
