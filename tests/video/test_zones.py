"""Zones: which polygons are read, which faces are in them, and what is counted and reported."""

import json
from dataclasses import replace

import numpy as np
import pytest

import detect_mask_video
from facemask.errors import InputError
from facemask.types import Detection, Event, FrameResult, Track
from facemask.video.events import EventRecorder
from facemask.video.frame_images import FrameImages
from facemask.video.outputs import Statistics, count_faces
from facemask.video.zones import Zone, ZoneFilter, zones_by_source
from tests.helpers import PEOPLE, write_video
from tests.test_detect_mask_video import people

IMAGE = np.zeros((100, 200, 3), np.uint8)
IMAGES = FrameImages(IMAGE, FrameResult(0, 0.0, [], [], [], []))
LEFT, RIGHT = Zone.parse("left:0,0,0.5,0,0.5,1,0,1"), Zone.parse("right:0.5,0,1,0,1,1,0.5,1")


def detection(box: tuple[int, int, int, int], track: int | None = None) -> Detection:
    return Detection(box, 0.9, "without_mask", 0.9, {"without_mask": 0.9, "with_mask": 0.1}, track)


def person(id: int, label: str = "without_mask") -> Track:
    return Track(id, 0.0, 1.0, 5, label, {label: 0.9}, True, label, (1, 2, 3, 4), 0.0)


def seen_at(*places: int, ended=()) -> FrameResult:
    """Return a frame with people 1, 2, …, the centres of whose faces are that many pixels from the left."""
    faces = [detection((place - 5, 40, place + 5, 50), id) for id, place in enumerate(places, 1)]
    return FrameResult(0, 0.0, faces, [person(id) for id, _ in enumerate(places, 1)], [], list(ended))


@pytest.mark.parametrize(
    ("text", "name", "source", "points"),
    [
        ("0,0,1,0,1,1", "", None, [(0, 0), (200, 0), (200, 100)]),
        ("door:0.5,0.5,1,0.5,1,1", "door", None, [(100, 50), (200, 50), (200, 100)]),
        ("at the till:10,20,30,20,30.5,40", "at the till", None, [(10, 20), (30, 20), (30.5, 40)]),
        ("till@2:0,0,1,0,1,1", "till", 2, [(0, 0), (200, 0), (200, 100)]),
        ("@2:0,0,1,0,1,1", "", 2, [(0, 0), (200, 0), (200, 100)]),
        ("me@home:0,0,1,0,1,1", "me@home", None, [(0, 0), (200, 0), (200, 100)]),
        ("a:b:0,0,1,0,1,1", "a:b", None, [(0, 0), (200, 0), (200, 100)]),
    ],
)
def test_parse(text, name, source, points):
    zone = Zone.parse(text)
    assert (zone.name, zone.source) == (name, source)
    np.testing.assert_allclose(zone.polygon(200, 100), points)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,0,1,0", "must have x and y of 3 points or more, has 4 numbers"),
        ("0,0,1,0,1", "must have x and y of 3 points or more, has 5 numbers"),
        ("0,0,1,0,1,1,0", "must have x and y of 3 points or more, has 7 numbers"),
        ("door", "must be [NAME[@SOURCE]:]x1,y1,x2,y2,… in numbers"),
        ("door:0,0,1,0,1,x", "must be [NAME[@SOURCE]:]x1,y1,x2,y2,… in numbers"),
        ("0,0,1,0,1,-1", "must have fractions from 0 to 1, or pixels from 0"),
        ("0,0,1,0,1,nan", "must have fractions from 0 to 1, or pixels from 0"),
        ("0,0,1,0,1,inf", "must have fractions from 0 to 1, or pixels from 0"),
        ("0,0,0.5,0.5,1,1", "must have an area: its points lie on a line"),
        ("0,0,1,1,1,0,0,1", "must not cross itself: give its points in order, around it"),
        ("0,0,1,0,0.2,1,0.8,1", "must not cross itself: give its points in order, around it"),
        ("door@0:0,0,1,0,1,1", "must number sources from 1"),
    ],
)
def test_bad_polygon(capsys, text, message):
    with pytest.raises(SystemExit) as error:
        detect_mask_video.main([f"--zone={text}"])
    assert error.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert line.endswith(f"error: argument --zone: {message}, received {text!r}")


def test_zones_of_one_source():
    first, second, both = Zone.parse("a@1:0,0,1,0,1,1"), Zone.parse("b@2:0,0,1,0,1,1"), Zone.parse("c:0,0,1,0,1,1")
    assert zones_by_source([first, second, both], 2) == [[first, both], [second, both]]
    with pytest.raises(InputError, match=r"^--zone b@2: is for source 2, and -i names 1; number them from 1$"):
        zones_by_source([first, second], 1)


def test_without_zones_nothing_changes():
    result = seen_at(10, 150)
    assert ZoneFilter([], "camera 0").apply(result, IMAGE) is result
    assert count_faces(result) == {"No mask": 2}


@pytest.mark.parametrize(
    ("zones", "place", "name"),
    [
        pytest.param([LEFT], 99, "left", id="inside"),
        pytest.param([LEFT], 100, "left", id="on the edge"),
        pytest.param([LEFT], 101, None, id="outside"),
        pytest.param([LEFT, RIGHT], 101, "right", id="in the second"),
        pytest.param([RIGHT, LEFT], 100, "right", id="in both"),
        pytest.param([Zone.parse("0,0,1,0,1,1"), Zone.parse("0,0,0.1,0,0.1,1,0,1")], 10, "zone 2", id="without a name"),
        pytest.param([Zone.parse("90,40,110,40,110,50,90,50")], 100, "zone 1", id="pixels"),
        pytest.param([Zone.parse("90,46,110,46,110,60,90,60")], 100, None, id="the box reaches into it, its centre does not"),
    ],
)
def test_zone_of_a_face(zones, place, name):
    result = ZoneFilter(zones, "camera 0").apply(seen_at(place), IMAGE)
    assert [face.zone for face in result.faces] == [track.zone for track in result.tracks] == [name]


def test_fractions_follow_the_size_of_the_image():
    zones = ZoneFilter([LEFT], "camera 0")
    assert zones.apply(seen_at(90), IMAGE).faces[0].zone == "left"
    assert zones.apply(seen_at(90), IMAGE[:, :100]).faces[0].zone is None


def test_zone_beyond_the_image_is_reported_once(caplog):
    zones = ZoneFilter([LEFT, Zone.parse("door:0,0,1920,0,1920,1080")], "camera 0")
    for _ in range(3):
        zones.apply(seen_at(90), IMAGE)
    assert caplog.messages == [
        "camera 0: door reaches beyond the image of 200 x 100 px; give fractions from 0 to 1, or pixels of this image"
    ]


def test_only_people_in_a_zone_are_counted():
    """One stays outside, one goes through the zone, one stays in it; of a face without a track only the place counts."""
    zones, statistics = ZoneFilter([LEFT], "camera 0"), Statistics()
    frames = [seen_at(150, 50, 50), seen_at(150, 150, 50), seen_at(150, 150, 50)]
    frames[0].faces.extend([detection((0, 0, 10, 10)), detection((180, 0, 190, 10))])
    shown = []
    for frame in [*frames, FrameResult(3, 1.0, [], [], [], [person(1), person(2)])]:
        result = zones.apply(frame, IMAGE)
        statistics.write(result, IMAGES)
        shown.append(count_faces(result))
    assert shown == [{"No mask": 3}, {"No mask": 1}, {"No mask": 1}, {}]
    assert (statistics.faces, statistics.people) == (5, {"without_mask": 2})


def test_events_only_in_a_zone():
    """Confirmed outside and then inside: one event, as it enters. The end has the zone in which the person was last."""
    events: list[Event] = []
    zones, recorder = ZoneFilter([LEFT, RIGHT], "camera 0"), EventRecorder(["without_mask"], "camera 0", [events.append])
    middle = ZoneFilter([Zone.parse("door:80,0,120,0,120,100,80,100")], "camera 0")
    for place in (10, 100, 100, 10):
        recorder.write(middle.apply(seen_at(place), IMAGE), IMAGES)
    recorder.write(middle.apply(FrameResult(4, 1.0, [], [], [], [person(1)]), IMAGE), IMAGES)
    assert [(event.record["event"], event.record["zone"]) for event in events] == [("confirmed", "door"), ("ended", "door")]
    del events[:]
    recorder.write(zones.apply(seen_at(10, 190), IMAGE), IMAGES)
    recorder.write(zones.apply(seen_at(190, 10), IMAGE), IMAGES)
    recorder.close()
    assert [(event.record["event"], event.record["track"], event.record["zone"]) for event in events] == [
        ("confirmed", 1, "left"),
        ("confirmed", 2, "right"),
        ("ended", 1, "right"),
        ("ended", 2, "left"),
    ]


def test_end_of_the_video_outside_of_the_zone():
    events: list[Event] = []
    zones, recorder = ZoneFilter([LEFT], "camera 0"), EventRecorder(["without_mask"], "camera 0", [events.append])
    for place in (10, 190):
        recorder.write(zones.apply(seen_at(place), IMAGE), IMAGES)
    recorder.close()
    assert [(event.record["event"], event.record["zone"]) for event in events] == [("confirmed", "left"), ("ended", "left")]


def test_zones_are_drawn_thinly():
    image = np.zeros((100, 200, 3), np.uint8)
    zones = ZoneFilter([replace(LEFT, name="")], "camera 0")
    zones.apply(seen_at(10), image)
    image = FrameImages(image, FrameResult(0, 0.0, [], [], [], []), zones=zones.outlines).annotated
    assert set(np.flatnonzero(image[90].any(axis=1))) <= {0, 1, 99, 100, 101} and image[90, 100].min() >= 80


def test_zone_of_a_video(tmp_path, capsys):
    """The left half of examples/people.jpg has four of its eight faces."""
    video, jsonl, out = write_video(tmp_path / "a.mp4", [people()] * 12), tmp_path / "a.jsonl", tmp_path / "out.mp4"
    assert sum((x1 + x2) / 2 < 1216 / 2 for x1, _, x2, _ in PEOPLE) == 4
    arguments = ["-i", str(video), "--jsonl", str(jsonl), "-o", str(out), "--zone", "door:0,0,0.5,0,0.5,1,0,1"]
    assert detect_mask_video.main(arguments) == 0
    records = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert [sorted(str(face["zone"]) for face in record["faces"]) for record in records] == [["None"] * 4 + ["door"] * 4] * 12
    assert "12 frames, 48 faces of 4 people" in capsys.readouterr().err
