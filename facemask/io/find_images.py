"""Find the image files that files, folders and globs name."""

import glob
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from facemask.errors import InputError
from facemask.io.downloads import file_name, is_url, without_password
from facemask.io.kinds import HEIC, Kind, can_read_heic, identify_file

WRITTEN_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # of images that are written, and read
READ_SUFFIXES = (*WRITTEN_SUFFIXES, ".jfif", ".jpe", ".gif", ".avif", ".heic", ".heif", ".hif")
READ_KINDS = "JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP and TIFF"
PARTIAL = ".partial"  # ends the names of images that another run is writing (`outputs.partial_path`)


def find_images(sources: Iterable[str], skipped: Counter[Kind] | None = None) -> list[Path]:
    """List the images that files, folders (with their subfolders), globs and URLs name, each once, in order.

    The path of a URL is `url_path`'s; it is not downloaded yet.
    In a folder, files whose suffix is not an image's are taken if their content is. `skipped` counts those of kinds that are
    not read, as camera raw. Links to folders are not followed: they may form a circle. A subfolder that cannot be opened is
    listed itself, so that reading it reports the error. Raises InputError if a source names no image.
    """
    images: dict[Path, None] = {}
    for source in sources:
        path = Path(os.path.expanduser(source))
        if is_url(source):
            paths = [url_path(source)]
        elif path.is_dir():
            others: Counter[Kind] = Counter()
            paths = _walk(path, others)
            if not paths:
                found = f" ({describe_skipped(others)}, which are not read)" if others else ""
                raise InputError(f"{source}: no images in this folder{found}; known are {READ_KINDS}")
            if skipped is not None:
                skipped.update(others)
        elif path.exists() or not glob.has_magic(source):
            paths = [path]
        else:
            paths = match_files(path)
            if not paths:
                raise InputError(f"{source}: no file matches; check the pattern")
        images.update(dict.fromkeys(paths))
    return list(images)


def url_path(url: str) -> Path:
    """Return a path that stands for a URL: it ends in the name of the URL's file. No file is there."""
    return Path(without_password(url), file_name(url))


def find_urls(sources: Iterable[str]) -> dict[Path, str]:
    """Return the sources that are URLs, by `url_path`. Raises InputError if one is no URL of an image."""
    return {url_path(source): source for source in sources if is_url(source)}


def describe_skipped(skipped: Counter[Kind]) -> str:
    """Return counts by kind in one line, the most frequent first, as "2 camera raw, 1 video"."""
    return ", ".join(f"{count} {kind.name}" for kind, count in skipped.most_common())


def walk_files(folder: Path, suffixes: tuple[str, ...] = ("",)) -> list[Path]:
    """Return the files in a folder and its subfolders, and the subfolders that cannot be opened, sorted.

    `suffixes` are those of the files, in lower case. Hidden files and folders are left out, as `match_files` does: they hold
    thumbnails, copies of editors and, on a Mac's disks, attributes under an image's name ("._a.jpg").
    """
    closed: list[OSError] = []
    paths: list[Path] = []
    try:
        for parent, folders, names in os.walk(folder, onerror=closed.append):
            folders[:] = [name for name in folders if name[0] != "."]
            paths += [Path(parent, name) for name in names if name[0] != "." and name.lower().endswith(suffixes)]
    except RecursionError as error:
        raise InputError(f"{folder}: its folders are nested too deep; give those below it") from error
    return sorted([*paths, *(Path(error.filename) for error in closed)])


def is_image(path: Path) -> bool:
    """Return whether a file has an image's suffix or, with another or none, an image's content."""
    if path.suffix.lower() in READ_SUFFIXES:
        return True
    kind = identify_file(path) if path.is_file() else None  # a FIFO's writer would notice
    return kind is not None and kind.is_read


def _walk(folder: Path, skipped: Counter[Kind]) -> list[Path]:
    """Return the images in a folder and its subfolders, and the subfolders that cannot be opened, sorted."""
    paths = []
    for path in walk_files(folder):
        lower = path.name.lower()
        if lower.endswith((".heic", ".heif", ".hif")) and not can_read_heic():
            skipped[HEIC] += 1
        elif lower.endswith(READ_SUFFIXES):
            paths.append(path)
        elif not lower.endswith(PARTIAL) and (kind := identify_file(path)):
            if kind.is_read and (kind is not HEIC or can_read_heic()):
                paths.append(path)
            elif kind.is_counted:
                skipped[kind] += 1
        elif path.is_dir():  # it cannot be opened
            paths.append(path)
    return paths


def match_files(pattern: Path) -> list[Path]:
    """Return the files that match, sorted, without the hidden ones; unlike in the glob module, `**` follows no links."""
    fixed = next(number for number, part in enumerate(pattern.parts) if glob.has_magic(part))
    try:
        matches = Path(*pattern.parts[:fixed]).glob(str(Path(*pattern.parts[fixed:])))
        return sorted(match for match in matches if match.is_file() and not any(name[0] == "." for name in match.parts[fixed:]))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{pattern}: cannot be matched ({error}); give folders or files") from error
