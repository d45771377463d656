"""The options of detection in video: its sources and outputs."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from facemask.cli import options


def add_source_arguments(parser: argparse.ArgumentParser, zone: Callable[[str], object]) -> None:
    """Add what names the sources and how they are read; `zone` parses a zone."""
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


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names the outputs."""
    output = parser.add_argument_group("outputs")
    output.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the annotated video, .mp4 or .mkv; for several sources a folder"
    )
    output.add_argument("--no-audio", dest="audio", action="store_false", help="do not copy the sound into -o")
    output.add_argument("--jsonl", type=Path, metavar="FILE", help="write one JSON line per frame, with its faces and tracks")
    output.add_argument(
        "--events",
        type=Path,
        metavar="FILE",
        help="append a JSON line when a person is confirmed as without a mask or with one worn wrong, and when they leave",
    )
    output.add_argument("--snapshots", type=Path, metavar="FOLDER", help="write an image for each event of the first kind")
    output.add_argument(
        "--report", type=options.file_path, metavar="FILE", help="write an HTML page of the events with images, at the end"
    )
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
    output.add_argument(
        "--blur",
        action="store_true",
        help="pixelate every detected face in all that is shown and written; voices stay, unless --no-audio is given",
    )
    output.add_argument(
        "--serve",
        type=options.host_and_port,
        metavar="[HOST:]PORT",
        help="show the live video and the counts to browsers (default host: 127.0.0.1, this machine alone)",
    )
    options.add_page_arguments(output)
    options.add_collect_arguments(output)
    options.add_show_argument(output)


def check_page_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error if an option of the page is given without the page."""
    for option in ("password", "tls_cert", "tls_key"):
        needed = "tls_cert" if option == "tls_key" and args.serve else "serve"
        if getattr(args, option) and not getattr(args, needed):
            parser.error(f"--{option.replace('_', '-')} needs --{needed.replace('_', '-')}")
