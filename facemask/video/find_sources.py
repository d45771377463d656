"""Find the sources of video that files, folders, globs, cameras and URLs name, and name what is made of each."""

import glob
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from facemask.errors import InputError
from facemask.io.find_images import READ_SUFFIXES as IMAGE_SUFFIXES
from facemask.io.find_images import match_files, walk_files
from facemask.io.kinds import VIDEO_SUFFIXES as READ_SUFFIXES
from facemask.io.outputs import fold_name
from facemask.video.writer import VIDEO_SUFFIXES
from facemask.video.zones import Zone, zones_by_source

STANDARD_INPUT = "-"
MAX_CAMERA = 999  # index; a larger number is a file's name
MAX_STEM = 200  # characters of a name; file systems allow 255 bytes, with number and suffix
# A file, folder, glob, camera's index or URL, or - for standard input; or images that are one video.
SourceName = str | Sequence[Path]

logger = logging.getLogger(__name__)


def find_sources(given: Iterable[str], results: Path | None = None) -> list[SourceName]:
    """List the sources that `given` name, each once, in order: a folder's or glob's videos are a source each.

    Those of a folder that are below `results`, another folder, are earlier results and left out. Images without videos are
    the frames of one source: those of a folder, of a glob, or given one after the other. Raises InputError if files and
    sources that go on at once (`is_waiting`) are mixed, or a pattern cannot be matched.
    """
    sources: list[SourceName] = []
    for source in dict.fromkeys(each for name in given for each in _expand(name, results)):
        is_still = _is_still(source)
        if is_still and sources and _is_still(sources[-1]):
            before = sources.pop()
            sources.append([*([Path(before)] if isinstance(before, str) else before), Path(source)])
        else:
            sources.append(source)
    waiting = [source for source in sources if is_waiting(source)]
    if 0 < len(waiting) < len(sources):
        stored = next(source for source in sources if not is_waiting(source))
        raise InputError(
            f"{source_name(waiting[0])}: cameras and streams run at once, and files such as {source_name(stored)} one after "
            "the other; give one kind, and the other to another run"
        )
    return sources


def _expand(source: str, results: Path | None) -> list[str]:
    """Return the videos of a folder or glob; [source] if it is anything else, or has images alone."""
    path = Path(source)
    if is_waiting(source) or not (path.is_dir() or (glob.has_magic(source) and not path.exists())):
        return [source]
    if path.is_dir():
        videos = walk_files(path, READ_SUFFIXES)
        if results is not None and path.resolve() in results.resolve().parents:
            videos = [video for video in videos if not video.resolve().is_relative_to(results.resolve())]
    else:
        videos = [match for match in match_files(path) if not is_frame(match)]
    if not any(video.is_file() for video in videos):
        return [source]
    images = [match for match in (walk_files(path) if path.is_dir() else match_files(path)) if is_frame(match)]
    if images:
        logger.warning("%s: has videos; its images (%d) are not used; give them apart", source, len(images))
    return list(map(str, videos))


def _is_still(source: SourceName) -> bool:
    """Return whether a source is images that are not animated."""
    if not isinstance(source, str):
        return True
    path = Path(source)
    return not is_remote(source) and is_frame(path) and path.is_file() and not is_animation(path)


def is_frame(path: Path) -> bool:
    """Return whether a file is an image by its suffix; GIF is a video's, and the content of motion JPEG begins as an image's."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES and suffix not in READ_SUFFIXES


def is_animation(path: Path) -> bool:
    """Return whether a file is an image of several frames."""
    with suppress(Exception), Image.open(path) as image:  # of broken files Pillow raises what comes
        return getattr(image, "is_animated", False) and image.format != "TIFF"  # its frames are pages
    return False


def is_waiting(source: SourceName) -> bool:
    """Return whether frames come when they come, as of a camera, stream or pipe: such sources run at once."""
    if not isinstance(source, str):
        return False
    return is_camera(source) or is_remote(source) or source == STANDARD_INPUT or Path(source).is_fifo()


def is_camera(source: str) -> bool:
    """Return whether a source is a camera of this machine: an index or a device file."""
    return (source.isdecimal() and int(source) <= MAX_CAMERA) or Path(source).is_char_device()


def is_remote(source: str) -> bool:
    """Return whether a source is a URL."""
    return "://" in source


def source_name(source: SourceName) -> str:
    """Return a source as messages and records name it, without passwords."""
    if not isinstance(source, str):
        return f"{source[0]} and {len(source) - 1} more"
    if is_camera(source):
        return f"camera {source}"
    return "standard input" if source == STANDARD_INPUT else without_secrets(source)


def without_secrets(source: str) -> str:
    """Return a source as messages may name it: a URL without user, password and settings, where cameras take passwords too."""
    if "://" not in source:
        return source
    return re.sub(r"/[^/]*=.*", "/…", re.sub(r"//.*@", "//", re.sub(r"\?.*", "?…", source)))


@dataclass(frozen=True)
class Job:
    """A source, the names of what is made of it, and its zones."""

    source: SourceName
    video: Path | None  # the annotated video; None if it is not wanted
    prefix: str  # of the names of its snapshots; empty for an only source
    zones: list[Zone]

    @property
    def files(self) -> list[Path]:
        """Return the files that it reads, or would read if they existed."""
        if not isinstance(self.source, str):
            return list(self.source)
        return [] if is_waiting(self.source) else [Path(self.source)]


def make_jobs(sources: Sequence[SourceName], output: Path | None, zones: Sequence[Zone] = ()) -> list[Job]:
    """Return each source with its zones and where its annotated video goes: `output` for one, else a file in that folder.

    The file has the name of the source. Raises InputError if `output` names one file for several sources, or a zone is for
    none of them.
    """
    stems = source_stems(sources)
    prefixes = [f"{stem}-" for stem in stems] if len(sources) > 1 else [""]
    if output is None:
        videos: list[Path | None] = [None] * len(sources)
    elif output.suffix and not output.is_dir():
        if len(sources) > 1:
            raise InputError(f"{output}: is one file for {len(sources)} sources; give -o a folder")
        videos = [output]
    else:
        suffixes = [Path(source).suffix.lower() if isinstance(source, str) else "" for source in sources]
        suffixes = [suffix if suffix in VIDEO_SUFFIXES else VIDEO_SUFFIXES[0] for suffix in suffixes]
        videos = [output / f"{stem}{suffix}" for stem, suffix in zip(stems, suffixes, strict=True)]
    return [Job(*each) for each in zip(sources, videos, prefixes, zones_by_source(zones, len(sources)), strict=True)]


def source_stems(sources: Sequence[SourceName]) -> list[str]:
    """Return a name for the files that are made of each source, a file's own without its suffix; none differ only in case."""
    numbers: Counter[str] = Counter()
    stems: list[str] = []
    taken: set[str] = set()
    for source in sources:
        name = source_name(source).rpartition("://")[2]
        is_file = not isinstance(source, str) or (not is_waiting(source) and Path(source).exists())
        stem = Path(source if isinstance(source, str) else source[0]).stem if is_file else re.sub(r"[^\w.-]+", "_", name)
        stem = stem.strip("_")[:MAX_STEM] or "video"
        key = fold_name(stem)
        numbers[key] += 1
        while fold_name(numbered := f"{stem}_{numbers[key]}" if numbers[key] > 1 else stem) in taken:
            numbers[key] += 1
        taken.add(fold_name(numbered))
        stems.append(numbered)
    return stems
