#!/usr/bin/env python3
"""Follow the faces in a video, live or from a file, and tell who wears a mask.

  python detect_mask_video.py                                the first webcam, in a window; q or Esc leaves
  python detect_mask_video.py -i street.mp4 -o out.mp4       a file, annotated
  python detect_mask_video.py -i rtsp://camera/stream --serve 8000 --events events.jsonl
                                                             a guard desk: watch at http://127.0.0.1:8000/
  ffmpeg -i … -c copy -f matroska - | python detect_mask_video.py -i -
                                                             whatever FFmpeg reads

Each face keeps a number while it is seen and through short gaps, and a label that changes only when the evidence does.
Files are read frame by frame; of a camera or stream the newest frame is looked at, and it is opened again if it drops.
Outputs are finished on q, a closed window, Ctrl-C, SIGTERM, the end of the source and errors alike. Exit code: 0 done,
1 if the source, the model or an output failed, 130 after Ctrl-C, 143 after SIGTERM, 2 for a wrong command line.
"""

import argparse
import logging
import math
import sys
from collections import Counter
from contextlib import ExitStack, closing, nullcontext
from itertools import islice
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, FAILED, run, stop_on_signals
from facemask.errors import InputError

logger = logging.getLogger("facemask")
FRAMES_AHEAD = 4  # a worker, of a file: the classifier is asked in bursts, when many people come
SEEN_TO_HIDE = 0.1  # confidence from which --blur hides what may be a face


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    source = parser.add_argument_group("source")
    source.add_argument(
        "-i",
        "--input",
        default="0",
        metavar="SOURCE",
        help="a camera's index, a video file, pictures (a folder, a glob, frame_%%04d.jpg), a stream's URL, - (standard input)",
    )
    source.add_argument(
        "--width", type=options.positive_int, metavar="PX", help="ask a camera for that width; wider frames are scaled down to it"
    )
    source.add_argument("--stride", type=options.positive_int, default=1, metavar="N", help="look at every N-th frame only")
    source.add_argument(
        "--rate",
        type=options.frame_rate,
        metavar="FPS",
        help="frames per second of pictures, of motion JPEG on standard input, and of what states none (default: 25)",
    )
    source.add_argument(
        "--reconnect",
        type=options.natural_number,
        default=math.inf,
        metavar="SECONDS",
        help="give up on a camera or stream that has dropped and stays away so long; 0: at once (default: never)",
    )
    source.add_argument("--max-frames", type=options.positive_int, metavar="N", help="stop after looking at that many frames")
    options.add_detector_arguments(parser, tiles="off")
    output = parser.add_argument_group("outputs")
    output.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the annotated video: .mp4 or .mkv")
    output.add_argument("--jsonl", type=Path, metavar="FILE", help="write a JSON line a frame, with its faces and their tracks")
    output.add_argument(
        "--events",
        type=Path,
        metavar="FILE",
        help="append a JSON line when somebody is settled as without a mask or with one worn wrong, and when they leave",
    )
    output.add_argument("--snapshots", type=Path, metavar="FOLDER", help="write a picture for each event of the first kind")
    output.add_argument(
        "--on-event",
        metavar="CMD",
        help="run a command for each event, which it gets as a JSON line on standard input, as \"sh -c 'cat >> log'\"; "
        "the video does not wait for it",
    )
    output.add_argument("--blur", action="store_true", help="hide every face that is found, in all that is shown and written")
    output.add_argument(
        "--serve",
        type=options.host_and_port,
        metavar="[HOST:]PORT",
        help="show the live video and the counts to browsers (host by default: 127.0.0.1, this machine alone)",
    )
    options.add_show_argument(output)
    return parser


def detect(args: argparse.Namespace) -> int:
    from facemask.video.events import CommandRunner

    with CommandRunner(args.on_event) if args.on_event is not None else nullcontext() as command:
        return follow(args, command)


def follow(args: argparse.Namespace, command) -> int:
    """Do all but wait for the CommandRunner, which may be None."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.drawing import draw_tracked, pixelate_faces
    from facemask.io.json_lines import JsonLines, json_lines
    from facemask.io.outputs import check_outputs, check_writable, make_folder
    from facemask.io.records import tracked_face_record
    from facemask.labels import WITH_MASK, alerts, display_name
    from facemask.models.center_face import CenterFaceDetector
    from facemask.parallel import prefetch_map, thread_budget
    from facemask.types import Frame
    from facemask.video.display import Window, wants_window
    from facemask.video.events import EventRecorder
    from facemask.video.live_server import LiveServer, State
    from facemask.video.session import FrameRate
    from facemask.video.sources import open_source
    from facemask.video.tracker import MaskTracker
    from facemask.video.writer import VideoSink, check_video_output

    show = wants_window(args.show)
    if args.show is None and not show:
        logger.info("no display: no window%s", "" if args.serve else "; --serve 8000 shows the video to a browser")
    if args.output:
        check_video_output(args.output)
    check_outputs(filter(None, (args.output, args.jsonl, args.events)), [Path(args.input)])
    if args.snapshots:
        make_folder(args.snapshots)
        check_writable(args.snapshots / "snapshot.jpg")

    with ExitStack() as stack:
        stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
        server = stack.enter_context(LiveServer(*args.serve)) if args.serve else None
        source = stack.enter_context(open_source(args.input, args.width, args.stride, args.rate, args.reconnect, args.max_pixels))
        stopped_by = stack.enter_context(stop_on_signals(source.stop))
        if not source.has_rate and not source.is_live:
            logger.warning("%s states no frame rate; taking %g frames per second", source.name, float(source.rate))
        if args.rate and abs(args.rate - source.rate) > 0.01 * args.rate:
            logger.warning("--rate: not used, for %s states %.5g frames per second", source.name, float(source.rate))
        # Of a live source each frame is done before the next is begun, with all cores: the soonest result counts.
        workers, threads = (1, 0) if source.is_live else thread_budget()
        detector = options.load_detector(args, threads)
        classifier = detector.classifier
        tracker = MaskTracker(classifier.classify, classifier.info.labels, float(source.output_fps), args.confidence)
        sink = stack.enter_context(VideoSink(args.output, source.output_fps, source.is_live)) if args.output else None
        jsonl = stack.enter_context(json_lines(args.jsonl)) if args.jsonl else None
        events = stack.enter_context(JsonLines(args.events)) if args.events else None
        alert = alerts(classifier.info.labels)
        if len(alert) == len(classifier.info.labels) and (args.events or args.snapshots or command):
            logger.warning("the model has no class %s: every label is an event", WITH_MASK)
        recorder = EventRecorder(alert, events, args.snapshots, command, source.is_live)
        window = Window() if show else None
        if server:
            logger.info("watch at %s%s", server.url, "" if server.is_local else " (anyone who reaches this machine can)")

        closed = False

        def look(frame: Frame) -> list:
            size = None
            if args.blur and not args.detector_size and isinstance(detector.faces, CenterFaceDetector):
                # Small faces can be known too: of a large picture more is looked at.
                size = max(detector.faces.size, max(frame.image.shape[:2]) // 2)
            return detector.faces.detect(frame.image, least, size)

        def on_silence(seconds: float) -> None:
            if server:
                server.say_silent(seconds)
            if window and not window.say_silent(seconds):
                nonlocal closed
                closed = True
                source.stop()

        least = tracker.least_confidence(args.confidence)
        if args.blur:
            least = min(least, SEEN_TO_HIDE)
        total = min(filter(None, (source.frame_count, args.max_frames)), default=None)
        bar = stack.enter_context(tqdm(total=total, unit="frame", disable=None))
        frames = islice(source.frames(on_silence), args.max_frames)
        looks = stack.enter_context(closing(prefetch_map(look, frames, workers, 1 if source.is_live else FRAMES_AHEAD)))
        rate, faces_seen, people = FrameRate(), 0, Counter()
        for frame, looked in looks:
            found = looked.result()
            scene = tracker.update(frame.image, frame.time, found)
            people.update(track.settled_label for track in scene.left)
            faces_seen += len(scene.faces)
            if jsonl:
                faces = [tracked_face_record(face) for face in scene.faces]
                jsonl.write({"frame": frame.number, "time": round(frame.time, 4), "faces": faces})
            picture = frame.image
            if args.blur:
                picture = pixelate_faces(picture, [face.box for face in (*found, *scene.faces)] + scene.expected)
            if sink or window or server or args.snapshots:
                picture = draw_tracked(picture, scene.faces)
            recorder.update(scene.tracks, scene.left, picture)
            if sink:
                sink.write(picture, frame.time)
            counts = Counter(display_name(face.label) for face in scene.faces)
            if window:
                text = "  ".join(f"{label} {count}" for label, count in counts.most_common())
                closed = not window.show(picture, f"{rate.value:.0f} frames/s  {text}")
            if server:
                here = Counter(track.settled_label for track in tracker.tracks.values())
                settled = {display_name(label): count for label, count in (people + here).most_common() if label}
                server.show(picture, State(rate.count, frame.time, rate.value, 0.0, dict(counts.most_common()), settled))
            rate.add()
            bar.update()
            if closed or stopped_by:
                break
        left = tracker.finish()
        people.update(track.settled_label for track in left)
        recorder.leave(left)
        if rate.count == 0 and not closed and not stopped_by:
            hint = "is the camera free, the video whole, an MP4 that is streamed made with -movflags faststart?"
            raise InputError(f"{source.name}: opened, but gave no picture; {hint}")
        bar.close()
    for output in (args.output, args.jsonl, args.events, args.snapshots):
        if output and rate.count:
            logger.info("saved to %s", output)
    faults = source.quality.summary
    briefly = people.pop("", 0)
    told = [f"{display_name(label)} {count}" for label, count in people.most_common()]
    told += [f"too briefly to tell {briefly}"] if briefly else []
    logger.info(
        "%d frames%s%s, %d faces of %d people%s; %d events; %.1f s, %.1f frames/s",
        rate.count,
        " (stopped)" if closed or stopped_by else "",
        "".join(f", {count}" for count in ([f"{source.dropped_frames} dropped"] if source.dropped_frames else []) + faults),
        faces_seen,
        people.total() + briefly,
        f" ({', '.join(told)})" if told else "",
        recorder.count,
        rate.seconds,
        rate.count / max(rate.seconds, 1e-9),
    )
    if stopped_by:
        if command:
            command.patience = command.HURRIED
        return 128 + stopped_by[0]
    if closed or rate.count == args.max_frames:
        return DONE
    if source.is_live:
        logger.warning("%s has ended; start again when it is back", source.name)
        return FAILED
    if source.fault:
        logger.warning("%s %s", source.name, source.fault)
    return FAILED if source.dropped_frames or source.fault else DONE


def main(argv: list[str] | None = None) -> int:
    return run(detect, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
