#!/usr/bin/env python3
"""Make a short video of people.jpg, to try detect_mask_video.py: a camera pans over it, a pillar passes.

python -m examples.make_video people.mp4
python detect_mask_video.py -i people.mp4 -o annotated.mp4
"""

import argparse
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from facemask.cli import options
from facemask.cli.run import DONE, run

ROOT = Path(__file__).parents[1]
PEOPLE = ROOT / "examples" / "people.jpg"
RATE = 25  # frames per second
SIZE = 640, 400  # px, width and height
PILLAR = 70  # px wide
NOISE = 3.0  # grey levels, standard deviation
PILLAR_GREY = (96, 100, 104)


def make_video(path: Path, frames: int = 200, size: tuple[int, int] = SIZE) -> Path:
    """Write a video of this many frames, `size` (width, height) px; returns `path`."""
    import cv2

    from facemask.io.images import read_image
    from facemask.video.writer import VideoSink

    image = read_image(PEOPLE)
    generator = np.random.default_rng(0)
    width, height = size
    with VideoSink(path, Fraction(RATE)) as sink:
        for number in range(frames):
            turn = 2 * np.pi * number / 160
            scale = (0.85 + 0.15 * np.cos(turn)) * image.shape[0] / height  # px of the image per px of the view
            x = (image.shape[1] - scale * width) * (1 - np.cos(turn)) / 2
            y = (image.shape[0] - scale * height) * (1 + np.sin(2 * turn)) / 2
            view = cv2.warpAffine(
                image, np.array([[scale, 0, x], [0, scale, y]]), size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            )
            left = 9 * number % (width + 500) - PILLAR
            view[:, max(left, 0) : max(left + PILLAR, 0)] = PILLAR_GREY
            noisy = view + generator.normal(0, NOISE, view.shape)
            sink.write(np.clip(noisy, 0, 255).astype(np.uint8), number / RATE)
    return path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("output", type=Path, help="an .mp4 or .mkv file")
    parser.add_argument("--frames", type=options.positive_int, default=200, metavar="N", help="number of frames")

    def make(args: argparse.Namespace) -> int:
        print(f"saved to {make_video(args.output, args.frames)}")
        return DONE

    return run(make, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
