"""The page of the events of a run over videos."""

import re

import cv2
import numpy as np
import pytest

from facemask.types import Event
from facemask.video.event_page import EventReport, clock


def event(kind, track, probability=0.9, last_time=1.0, label="without_mask"):
    record = {
        "event": kind,
        "source": "a.mp4",
        "track": track,
        "label": label,
        "probability": probability,
        "unsure": probability < 0.6,
    }
    record |= {"first_time": 0.5, "last_time": last_time, "frames": 9, "best_box": (40, 40, 60, 60), "best_time": 0.7}
    jpeg = cv2.imencode(".jpg", np.full((100, 160, 3), 90, np.uint8))[1].tobytes()
    return Event(record, jpeg if kind == "confirmed" else None)


def test_events_are_shown_the_least_certain_first_with_when_they_ended(tmp_path):
    report = EventReport(tmp_path / "r.html")
    for each in (event("confirmed", 1), event("confirmed", 2, 0.5), event("ended", 1, last_time=75.04), event("ended", 7)):
        report.receive(each)
    report.write()
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall(r'data-probability="([^"]*)"', page) == ["0.5", "0.9"]
    assert "No mask? 50%" in page and page.count("data:image/jpeg") == 2
    rows = re.findall("<tr>(<td>.*?)</tr>", page)
    assert [re.findall("<td>(.*?)</td>", row) for row in rows] == [
        ["a.mp4", "1", "0:00:00.5", "0:01:15.0", "No mask 90%"],
        ["a.mp4", "2", "0:00:00.5", "", "No mask? 50%"],
    ]


def test_page_without_events(tmp_path):
    EventReport(tmp_path / "r.html").write()
    assert "0 events" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00.0"), (59.96, "0:01:00.0"), (3661.2, "1:01:01.2"), (360000, "100:00:00.0")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
