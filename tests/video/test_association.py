import sys
import threading

import pytest

from facemask.types import Face
from facemask.video.association import ByteTrackAssociation, preload


def test_a_missing_library_is_reported_by_the_first_use_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    preload()
    for thread in threading.enumerate():
        if thread.name == "import":
            thread.join()
    association = ByteTrackAssociation(25, 0.5)
    with pytest.raises(ImportError, match="trackers"):
        association.update(0.0, [])


def test_a_face_gets_its_id_in_its_second_frame():
    preload()
    association = ByteTrackAssociation(25, 0.5)
    faces = [Face((10, 10, 50, 60), 0.9)]
    assert [association.update(number / 25, faces) for number in range(3)] == [[None], [0], [0]]
    assert association.ids() == {0}
