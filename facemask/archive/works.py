"""Which kind of work sources ask for."""

from facemask.archive.images import WORK as IMAGES
from facemask.archive.sources import Found
from facemask.archive.worker import Work


def work_of(found: Found) -> Work:
    """Return the kind of work on what sources name. Raises ImportError if the extra "video" is not installed for clips."""
    if not found.are_clips:
        return IMAGES
    from facemask.archive.clips import WORK

    return WORK
