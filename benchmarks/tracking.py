#!/usr/bin/env python3
"""Measure what tracking faces through a video gains over detecting them in each frame alone.

  python -m benchmarks.tracking --video street_masks.mp4 --truth benchmarks/street_masks.txt

prints a Markdown table. The truth is in the MOTChallenge format, its class 1 for a mask, 2 for none, 3 for one worn wrong
and 0 for a face that nobody could classify: street_masks.txt has it for Qengineering's street_masks.mp4
(benchmarks/README.md explains how it was made). The networks run on each frame once, for all rows.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

import numpy as np

from facemask.cli import options
from facemask.cli.run import DONE, run
from facemask.errors import InputError
from facemask.types import Detection

ROOT = Path(__file__).parents[1]
LABELS = {1: "with_mask", 2: "without_mask", 3: "mask_weared_incorrect"}  # by class of the truth
MIN_IOU = 0.5  # intersection over union of a face with the true one
LINK_IOU = 0.3  # of a face with the same person's in the frame before, for a tracker that does no more
HEAD = (
    "| | IDs per person | IDs of several people | label changes | labels right | true faces detected | HOTA | IDF1 "
    "| faces classified |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class TrackedFace:
    """A face of a frame, as one way of tracking reports it."""

    id: int | None
    box: tuple[int, int, int, int]
    label: str


@dataclass(frozen=True)
class Truth:
    """A true face of a frame."""

    person: int
    box: tuple[int, int, int, int]
    label: str | None  # None if nobody could tell


Video = list[list[TrackedFace]]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("--video", type=Path, required=True, metavar="FILE")
    parser.add_argument("--truth", type=Path, required=True, metavar="FILE", help="in the MOTChallenge format")
    options.add_detector_arguments(parser, tiles="off")
    return parser


def measure(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from facemask.video.sources import open_source
    from facemask.video.tracker import MaskTracker

    truth = read_truth(args.truth)
    detector = options.load_detector(args)
    labels = detector.classifier.info.labels
    min_confidence = MaskTracker.min_confidence(args.confidence)
    with open_source(str(args.video)) as source:
        rate = float(source.rate)
        frames = [
            (frame.time, frame.image, detector.detect(frame.image, min_confidence))
            for frame in tqdm(source.frames(), total=source.frame_count, unit="frame", disable=None)
        ]

    def track(always_classify: bool, ratio: float = MaskTracker.MIN_CONFIDENCE_RATIO) -> tuple[Video, int]:
        """Track the faces; returns what the tracker reports and how many faces were classified."""

        class Tracker(MaskTracker):
            MIN_CONFIDENCE_RATIO = ratio

            def _is_due(self, id, face, time):
                is_wanted = always_classify and (id is not None or face.confidence >= args.confidence)
                return is_wanted or super()._is_due(id, face, time)

        classified = 0
        now: dict[tuple[int, int, int, int], Detection] = {}

        def classify(image: np.ndarray, boxes: Sequence[tuple[int, int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
            nonlocal classified
            classified += len(boxes)
            return np.array([[now[box].probabilities[name] for name in labels] for box in boxes]), np.ones(len(boxes))

        tracker, video = Tracker(classify, labels, rate, args.confidence), []
        for time, image, detections in frames:
            now = {detection.box: detection for detection in detections}
            result = tracker.update(image, time, detections)
            video.append([TrackedFace(face.track, face.box, face.label) for face in result.faces])
        return video, classified

    alone = link([[d for d in detections if d.confidence >= args.confidence] for _, _, detections in frames])
    rows: dict[str, tuple[Video, int]] = {
        "each frame alone, faces linked to those of the frame before": (alone, sum(map(len, alone))),
        "tracked, confident faces only": track(True, 1.0),
        "tracked, less confident faces too": track(True),
        "**the same, classified when needed**": track(False),
    }
    print(HEAD)
    for name, (video, classified) in rows.items():
        print(score(name, video, classified, truth, args.truth))
    return DONE


def read_truth(path: Path) -> dict[int, list[Truth]]:
    """Return the true faces by number of the frame, from 0. Raises InputError if the file cannot be read."""
    truth = defaultdict(list)
    try:
        for line in path.read_text().splitlines():
            frame, person, x, y, width, height, _, kind, *_ = map(int, line.split(","))
            truth[frame - 1].append(Truth(person, (x, y, x + width, y + height), LABELS.get(kind)))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a file in the MOTChallenge format") from error
    return truth


def link(frames: list[list]) -> Video:
    """Give each face the id of the face of the frame before that it overlaps most, else a new one."""
    from facemask.boxes import iou_matrix

    ids = count(1)
    previous: list[TrackedFace] = []
    video: Video = []
    for detections in frames:
        overlap = iou_matrix([face.box for face in detections], [face.box for face in previous])
        linked: dict[int, int | None] = {}
        for face, other in sorted(np.argwhere(overlap >= LINK_IOU).tolist(), key=lambda pair: -overlap[tuple(pair)]):
            if face not in linked and previous[other].id not in linked.values():
                linked[face] = previous[other].id
        previous = [TrackedFace(linked.get(index) or next(ids), face.box, face.label) for index, face in enumerate(detections)]
        video.append(previous)
    return video


def score(name: str, video: Video, classified: int, truth: dict[int, list[Truth]], truth_file: Path) -> str:
    """Return a row of the table."""
    from trackers.eval import evaluate_mot_sequence

    from facemask.boxes import iou_matrix

    ids, people, labels = defaultdict(set), defaultdict(set), defaultdict(list)
    detected = right = known = 0
    for number, faces in enumerate(video):
        true = truth[number]
        overlap = iou_matrix([face.box for face in faces], [one.box for one in true])
        detected += np.count_nonzero(overlap.max(axis=0, initial=0) >= MIN_IOU)
        for face, row in zip(faces, overlap, strict=True):
            if row.max(initial=0) < MIN_IOU:
                continue
            one = true[int(row.argmax())]
            labels[one.person].append(face.label)
            known += one.label is not None
            right += one.label == face.label
            if face.id is not None:
                ids[one.person].add(face.id)
                people[face.id].add(one.person)
    changes = sum(a != b for person in labels.values() for a, b in pairwise(person))
    with tempfile.TemporaryDirectory() as folder:
        tracked = Path(folder) / "tracked.txt"
        tracked.write_text(
            "".join(
                f"{number + 1},{face.id},{x1},{y1},{x2 - x1},{y2 - y1},1,-1,-1,-1\n"
                for number, faces in enumerate(video)
                for face, (x1, y1, x2, y2) in ((face, face.box) for face in faces)
                if face.id is not None
            )
        )
        result = evaluate_mot_sequence(truth_file, tracked, ["HOTA", "Identity"])
    per_person = sum(map(len, ids.values())) / max(len(ids), 1)
    several = sum(len(who) > 1 for who in people.values())
    detected_share = detected / sum(map(len, truth.values()))
    return (
        f"| {name} | {per_person:.2f} | {several} | {changes} | {right / known:.1%} | {detected_share:.1%} "
        f"| {result.HOTA.HOTA:.2f} | {result.Identity.IDF1:.2f} | {classified} |"
    )


if __name__ == "__main__":
    sys.exit(run(measure, build_parser().parse_args()))
