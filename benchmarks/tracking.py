#!/usr/bin/env python3
"""Measure what following faces through a video gains over looking at each frame alone.

  python -m benchmarks.tracking --video street_masks.mp4 --truth benchmarks/street_masks.txt

prints a Markdown table. The truth is in the MOTChallenge format, its class 1 for a mask, 2 for none, 3 for one worn wrong
and 0 where nobody could tell: street_masks.txt has it for Qengineering's street_masks.mp4 (benchmarks/README.md says how
it was made). The networks look at each frame once, for all rows.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

import numpy as np

from facemask.cli import options
from facemask.cli.run import DONE, run
from facemask.errors import InputError

ROOT = Path(__file__).parents[1]
LABELS = {1: "with_mask", 2: "without_mask", 3: "mask_weared_incorrect"}  # by class of the truth
SAME = 0.5  # least intersection over union of a face with the true one
LINK = 0.3  # of a face with the one in the frame before that is the same, for a tracker that does no more
HEAD = (
    "| | ids per person | ids of several people | label changes | labels right | true faces seen | HOTA | IDF1 "
    "| faces classified |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Seen:
    """A face of a frame, as one way of following tells it."""

    id: int | None
    box: tuple[int, int, int, int]
    label: str


@dataclass(frozen=True)
class Truth:
    """A face of a frame, as it is."""

    person: int
    box: tuple[int, int, int, int]
    label: str | None  # None where nobody could tell


Video = list[list[Seen]]


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
    classes = detector.classifier.info.classes
    least = MaskTracker.min_confidence(args.confidence)
    with open_source(str(args.video)) as source:
        rate = float(source.rate)
        frames = [
            (frame.time, frame.image, detector.detect(frame.image, least))
            for frame in tqdm(source.frames(), total=source.frame_count, unit="frame", disable=None)
        ]

    def follow(looks_always: bool, low: float = MaskTracker.LOW) -> tuple[Video, int]:
        """Follow with the tracker; returns what it tells and how many faces were classified."""

        class Tracker(MaskTracker):
            LOW = low

            def _is_due(self, number, face, time):
                always = looks_always and (number is not None or face.confidence >= args.confidence)
                return always or super()._is_due(number, face, time)

        classified, now = 0, {}

        def classify(image: np.ndarray, boxes: list) -> np.ndarray:
            nonlocal classified
            classified += len(boxes)
            return np.array([[now[box].probabilities[name] for name in classes] for box in boxes])

        tracker, video = Tracker(classify, classes, rate, args.confidence), []
        for time, image, detections in frames:
            now = {detection.box: detection for detection in detections}
            scene = tracker.update(image, time, detections)
            video.append([Seen(face.track, face.box, face.label) for face in scene.faces])
        return video, classified

    alone = link([[d for d in detections if d.confidence >= args.confidence] for _, _, detections in frames])
    rows: dict[str, tuple[Video, int]] = {
        "each frame alone, faces linked to those of the frame before": (alone, sum(map(len, alone))),
        "followed, sure faces only": follow(True, 1.0),
        "followed, unsure faces too": follow(True),
        "**the same, classified when needed**": follow(False),
    }
    print(HEAD)
    for name, (video, classified) in rows.items():
        print(score(name, video, classified, truth, args.truth))
    return DONE


def read_truth(path: Path) -> dict[int, list[Truth]]:
    """Return the true faces by number of the frame, from 0. Raises InputError if the file is not as it should be."""
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

    ids, before, video = count(1), [], []
    for detections in frames:
        overlap = iou_matrix([d.box for d in detections], [seen.box for seen in before])
        found: dict[int, int] = {}
        for face, other in sorted(np.argwhere(overlap >= LINK).tolist(), key=lambda pair: -overlap[tuple(pair)]):
            if face not in found and before[other].id not in found.values():
                found[face] = before[other].id
        before = [Seen(found.get(index) or next(ids), d.box, d.label) for index, d in enumerate(detections)]
        video.append(before)
    return video


def score(name: str, video: Video, classified: int, truth: dict[int, list[Truth]], truth_file: Path) -> str:
    """Return a row of the table."""
    from trackers.eval import evaluate_mot_sequence

    from facemask.boxes import iou_matrix

    ids, people, labels = defaultdict(set), defaultdict(set), defaultdict(list)
    seen_count = right = known = 0
    for number, faces in enumerate(video):
        true = truth[number]
        overlap = iou_matrix([face.box for face in faces], [one.box for one in true])
        seen_count += np.count_nonzero(overlap.max(axis=0, initial=0) >= SAME)
        for face, row in zip(faces, overlap, strict=True):
            if row.max(initial=0) < SAME:
                continue
            one = true[int(row.argmax())]
            labels[one.person].append(face.label)
            known += one.label is not None
            right += one.label == face.label
            if face.id is not None:
                ids[one.person].add(face.id)
                people[face.id].add(one.person)
    changes = sum(a != b for said in labels.values() for a, b in pairwise(said))
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.txt"
        told.write_text(
            "".join(
                f"{number + 1},{face.id},{x1},{y1},{x2 - x1},{y2 - y1},1,-1,-1,-1\n"
                for number, faces in enumerate(video)
                for face, (x1, y1, x2, y2) in ((face, face.box) for face in faces)
                if face.id is not None
            )
        )
        result = evaluate_mot_sequence(truth_file, told, ["HOTA", "Identity"])
    per_person = sum(map(len, ids.values())) / max(len(ids), 1)
    several = sum(len(who) > 1 for who in people.values())
    seen_share = seen_count / sum(map(len, truth.values()))
    return (
        f"| {name} | {per_person:.2f} | {several} | {changes} | {right / known:.1%} | {seen_share:.1%} "
        f"| {result.HOTA.HOTA:.2f} | {result.Identity.IDF1:.2f} | {classified} |"
    )


if __name__ == "__main__":
    sys.exit(run(measure, build_parser().parse_args()))
