import sys
import threading

import pytest

from facemask.types import Face
from facemask.video.association import ByteTrackAssociation, preload

FACES = [Face((10, 10, 50, 60), 0.9)]


def test_the_first_frame_does_not_need_the_library_and_the_second_one_does(monkeypatch):
    """Its import takes long; where it is missing, that is reported by the first use alone."""
    monkeypatch.setitem(sys.modules, "trackers", None)
    preload()
    for thread in threading.enumerate():
        if thread.name == "import":
            thread.join()
    association = ByteTrackAssociation(25, 0.5)
    assert association.update(0.0, FACES) == [None]
    assert (association.ids(), association.predicted_boxes()[0]) == (set(), [])
    with pytest.raises(ImportError, match="trackers"):
        association.update(0.04, FACES)


def test_a_face_gets_its_id_in_its_second_frame():
    preload()
    association = ByteTrackAssociation(25, 0.5)
    assert [association.update(number / 25, FACES) for number in range(3)] == [[None], [0], [0]]
    assert association.ids() == {0}
