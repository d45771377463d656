#!/usr/bin/env python3
"""Detect the faces in an archive of images or videos, on all cores of this machine or a Ray cluster, and who wears a mask.

  python detect_mask_archive.py -i photos/ -o results/                       every image of a folder, to Parquet
  python detect_mask_archive.py -i "s3://bucket/2026/*.jpg" -o s3://bucket/faces/ --address auto
  python detect_mask_archive.py -i "shards/*.tar" list.txt rows.parquet -o results/ --format jsonl
  python detect_mask_archive.py -i "clips/*.mp4" -o tracks/                  videos: tracks and events
  python detect_mask_archive.py -i photos/ -o results/ --resume              continue a run that was interrupted or killed
  python detect_mask_archive.py -i photos/ -o first/ --sample 200            a first run over 200 images drawn at random

The output is a folder with parts of Parquet or JSON lines, one row per image, or per video, track and event, and summary.json.
An image or video that cannot be used is a row with its error. docs/archives.md has the columns, and queries for DuckDB and
pandas. It needs the extra "archive". Exit code: 0 done (also if some could not be used), 1 if the run could not be done, 2 for
a wrong command line, 130 after Ctrl-C, 143 after SIGTERM.
"""

import argparse
import logging
import sys
import time
import uuid
from collections import Counter
from functools import partial

from facemask.cli import options
from facemask.cli.run import DONE, run
from facemask.errors import InputError

# Options that a resumed run must have as before. --device is not among them: it changes how a result is computed.
SAME = ("format", "confidence", "detector_size", "tiles", "turns", "stride", "max_faces", "max_pixels")
BY_KIND = ("tiles", "turns", "stride", "batch_size")  # options that images and videos do not share, or not the default of

logger = logging.getLogger("facemask")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "-i",
        "--input",
        nargs="+",
        action="extend",
        required=True,
        metavar="SOURCE",
        help="images, or else videos: files, folders (with subfolders), globs, lists (.txt, one path per line), tar shards of "
        "images, Parquet files with images or paths; of this machine, or URIs as s3://bucket/folder, gs://… or az://…; may be "
        "given several times",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="write the results into this folder, or URI")
    parser.add_argument("--format", choices=("parquet", "jsonl"), default="parquet", help="how the rows are written")
    parser.add_argument("--resume", action="store_true", help="continue the run in the output folder, or add what is new to it")
    first = parser.add_mutually_exclusive_group()
    first.add_argument("--limit", type=options.positive_int, metavar="N", help="process the first N only")
    first.add_argument("--sample", type=options.positive_int, metavar="N", help="process N drawn at random, the same each time")
    options.add_column_argument(parser)
    ray = parser.add_argument_group("where it runs")
    options.add_ray_arguments(ray)
    ray.add_argument(
        "--batch-size",
        type=options.positive_int,
        metavar="N",
        help="images of a unit of work; a part of the output has at most 1024 of them, a killed process repeats at most these "
        "(default: up to 1024)",
    )
    options.add_detector_arguments(parser, tiles=None)
    options.add_turns_argument(parser, default=None)
    parser.add_argument(
        "--stride", type=options.positive_int, metavar="N", help="of videos: process every N-th frame only (default: 1)"
    )
    return parser


def detect(args: argparse.Namespace) -> int:
    import ray  # noqa: F401  if it is missing, that is reported before anything is written
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from facemask.archive.job import cluster, run_units, unit_size
    from facemask.archive.parts import Output, scan
    from facemask.archive.runs import SUMMARY, begin, check
    from facemask.archive.sources import choose, cut_units, find_sources
    from facemask.archive.tables import SCHEMA_VERSION
    from facemask.archive.worker import Settings
    from facemask.archive.works import work_of
    from facemask.io.find_images import describe_skipped
    from facemask.io.kinds import Kind

    skipped: Counter[Kind] = Counter()
    found = choose(find_sources(args.input, skipped, args.column), args.limit, args.sample)
    if skipped:
        logger.warning("not read: %s", describe_skipped(skipped))
    work = work_of(found)
    settle_options(args, work)
    load = partial(options.load_detector, args, 1)
    load()  # a mistake in its options is reported before a cluster is started
    output = Output(args.output.rstrip("/"), args.format)
    same = {name: getattr(args, name) for name in SAME}
    same |= model_sums(args)
    settings = Settings(load, output, uuid.uuid4().hex, args.confidence, args.max_pixels, args.stride)
    items, all_items = f"{work.item}s", work.totals[0]
    check(output, same, args.resume)  # before a cluster is started, which takes seconds
    with cluster(args.address, args.actors) as actors, begin(output, settings.run, same, args.resume):
        earlier = scan(output, work.table, work.count)
        counts = earlier.counts
        size = args.batch_size or unit_size(len(found.images), actors)
        units = cut_units(found, size, earlier.names, earlier.finished)
        known = [unit.count for unit in units]
        total = None if None in known else sum(filter(None, known))
        if counts.totals[all_items]:
            logger.info("%d %s were done before", counts.totals[all_items], items)
        start, done, truncated = time.perf_counter(), 0, 0
        with (
            logging_redirect_tqdm([logging.getLogger()]),
            tqdm(total=total, unit=work.item, disable=None) as progress,
        ):
            for result in run_units(units, work.worker, settings, actors, args.device):
                done += result.counts.totals[all_items]
                truncated += result.truncated
                counts.update(result.counts)
                progress.update(result.counts.totals[all_items])
        seconds = time.perf_counter() - start
        summary = counts.record(work.totals)
        output.write_json(SUMMARY, {"schema": SCHEMA_VERSION} | summary)
    if truncated:
        logger.warning("%d images may show more than their %d faces; --max-faces keeps more", truncated, args.max_faces)
    for name, values in summary.items():
        text = ", ".join(f"{value} {key}" for key, value in values.items()) if isinstance(values, dict) else values
        if text:
            logger.info("%-13s %s", name.replace("_", " "), text)
    rate = done / seconds if seconds else 0
    place = output.name(work.table.folder)
    logger.info("%d %s in %.1f s, %.1f per second, %d actors; saved to %s", done, items, seconds, rate, actors, place)
    return DONE


def settle_options(args: argparse.Namespace, work) -> None:
    """Give options their defaults for a kind of work. Raises InputError if one is given that the kind does not have."""
    for name in BY_KIND:
        value = getattr(args, name)
        if name in work.defaults:
            setattr(args, name, work.defaults[name] if value is None else value)
        elif value is not None:
            raise InputError(f"--{name.replace('_', '-')}: {work.item}s do not have this option; omit it")


def model_sums(args: argparse.Namespace) -> dict[str, str]:
    """Return the checksums of both networks' files: results of others must not be mixed."""
    from facemask.models.face_detectors import choose_face_detector
    from facemask.models.model_file import sha256

    face = choose_face_detector(args.face).sha256 if args.face.is_dir() else sha256(args.face)
    return {"model": sha256(args.model), "face": face}


def main(argv: list[str] | None = None) -> int:
    return run(detect, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
