#!/usr/bin/env python3
"""Find faces in live video and tell who wears a mask.

  python detect_mask_video.py                                the first webcam, in a window; q or Esc leaves
  python detect_mask_video.py -i street.mp4 -o out.mp4       a file, annotated
  python detect_mask_video.py -i rtsp://camera/stream --jsonl faces.jsonl --no-show

Every frame is looked at. Outputs are finished on q, Ctrl-C, the end of the source and errors alike. Exit code: 0 done,
1 if the source, the model or an output failed, 130 after Ctrl-C, 2 for a wrong command line.
"""

import argparse
import json
import logging
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from facemask import cli
from facemask.errors import InputError

logger = logging.getLogger("facemask")

WINDOW = "Face masks"
RATE_SMOOTHING = 0.95  # weight of the past in the frame rate shown; frames come in bursts


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("-i", "--input", default="0", metavar="SOURCE", help="a camera's index, a video file or a stream's URL")
    cli.add_detector_arguments(parser, tiles="off")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the annotated video: .mp4 or .avi")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write a JSON line a frame, with its faces")
    parser.add_argument("--max-frames", type=cli.positive_int, metavar="N", help="stop after that many frames")
    cli.add_show_argument(parser)
    return parser


def detect(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from facemask.drawing import draw_detections, draw_status, readable
    from facemask.files import check_outputs, text_output
    from facemask.media import Frame, VideoSink, VideoSource, check_video_output
    from facemask.workers import AHEAD, share_cores, work_ahead

    show = cli.wants_window(args.show)
    if args.output:
        check_video_output(args.output)
    check_outputs(filter(None, (args.output, args.jsonl)), [Path(args.input)])
    frame_count, labels, interval, stopped, interrupted = 0, Counter(), 0.0, False, False
    with ExitStack() as stack:
        source = stack.enter_context(VideoSource(args.input))
        if not source.states_rate:
            logger.warning("%s states no frame rate; taking %g frames per second", args.input, source.rate)
        workers, threads = share_cores()
        detector = cli.load_detector(args, threads)

        def look(frame: Frame) -> list:
            return detector.detect(frame.image, args.confidence)

        sink = stack.enter_context(VideoSink(args.output, source.rate)) if args.output else None
        jsonl = stack.enter_context(text_output(args.jsonl, keep=True)) if args.jsonl else None
        total = min(filter(None, (source.frame_count, args.max_frames)), default=None)
        bar = stack.enter_context(tqdm(total=total, unit="frame", disable=None))
        frames = islice(source.frames(), args.max_frames)
        looks = stack.enter_context(closing(work_ahead(look, frames, workers, 1 if source.is_live else AHEAD)))
        start = last = time.perf_counter()
        try:
            for frame, looked in looks:
                detections = looked.result()
                labels.update(detection.label for detection in detections)
                if jsonl:
                    faces = [asdict(detection) for detection in detections]
                    print(json.dumps({"frame": frame.number, "time": round(frame.time, 4), "faces": faces}), file=jsonl)
                if sink or show:
                    annotated = draw_detections(frame.image, detections)
                    if sink:
                        sink.write(annotated)
                    if show:
                        now = time.perf_counter()
                        interval = RATE_SMOOTHING * interval + (1 - RATE_SMOOTHING) * (now - last) if frame_count else now - last
                        last = now
                        draw_status(annotated, f"{1 / interval:.0f} frames/s  {len(detections)} faces")
                        stopped = not show_frame(annotated)
                frame_count += 1
                bar.update()
                if stopped:
                    break
            if frame_count == 0:
                raise InputError(f"{args.input}: opened, but gave no picture; is the camera free, the video whole?")
        except KeyboardInterrupt:
            interrupted = True
        seconds = time.perf_counter() - start
    for output in (args.output, args.jsonl):
        if output and frame_count:
            logger.info("saved to %s", output)
    counts = ", ".join(f"{readable(label)} {count}" for label, count in labels.most_common())
    logger.info(
        "%d frames%s, %d faces seen%s; %.1f s, %.1f frames/s",
        frame_count,
        " (stopped)" if stopped or interrupted else "",
        labels.total(),
        f" ({counts})" if counts else "",
        seconds,
        frame_count / seconds,
    )
    if interrupted:
        return cli.INTERRUPTED
    if not stopped and frame_count != args.max_frames:
        if source.is_live:
            logger.warning("%s has ended; start again when it is back", args.input)
            return cli.FAILED
        if source.frame_count and frame_count < source.frame_count:
            logger.warning("%s states %d frames, %d could be read", args.input, source.frame_count, frame_count)
    return cli.DONE


def show_frame(image) -> bool:
    """Show a frame; return False once q or Esc is pressed or the window is closed."""
    import cv2

    cv2.imshow(WINDOW, image)
    key = cv2.waitKey(1) & 0xFF
    return key not in (ord("q"), 27) and cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) >= 1


def main(argv: list[str] | None = None) -> int:
    return cli.run(detect, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
