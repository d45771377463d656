"""Find the image files that files, folders and globs name."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from facemask.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_images(sources: Iterable[str]) -> list[Path]:
    """List the images that files, folders (with their subfolders) and globs name, each once, in order.

    Links to folders are not followed: they may form a circle. A subfolder that cannot be opened is listed itself, so that
    reading it reports the error. Raises InputError if a source names no image.
    """
    images: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            paths = _walk(path)
            if not paths:
                raise InputError(f"{source}: no images in this folder; known are {' '.join(IMAGE_SUFFIXES)}")
        elif path.exists() or not glob.has_magic(source):
            paths = [path]
        else:
            paths = sorted(_glob(path))
            if not paths:
                raise InputError(f"{source}: no file matches; check the pattern")
        images.update(dict.fromkeys(paths))
    return list(images)


def _walk(folder: Path) -> list[Path]:
    """Return the images in a folder and its subfolders, and the subfolders that cannot be opened, sorted."""
    closed: list[OSError] = []
    try:
        paths = [
            Path(parent, name)
            for parent, _, names in os.walk(folder, onerror=closed.append)
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES)
        ]
    except RecursionError as error:
        raise InputError(f"{folder}: its folders are nested too deep; give those below it") from error
    return sorted([*paths, *(Path(error.filename) for error in closed)])


def _glob(pattern: Path) -> list[Path]:
    """Return the files that match, without the hidden ones; unlike in the glob module, `**` follows no links."""
    fixed = next(number for number, part in enumerate(pattern.parts) if glob.has_magic(part))
    try:
        matches = Path(*pattern.parts[:fixed]).glob(str(Path(*pattern.parts[fixed:])))
        return [match for match in matches if match.is_file() and not any(name[0] == "." for name in match.parts[fixed:])]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{pattern}: cannot be matched ({error}); give folders or files") from error
