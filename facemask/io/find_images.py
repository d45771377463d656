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
            paths = walk_files(path, IMAGE_SUFFIXES)
            if not paths:
                raise InputError(f"{source}: no images in this folder; known are {' '.join(IMAGE_SUFFIXES)}")
        elif path.exists() or not glob.has_magic(source):
            paths = [path]
        else:
            paths = match_files(path)
            if not paths:
                raise InputError(f"{source}: no file matches; check the pattern")
        images.update(dict.fromkeys(paths))
    return list(images)


def walk_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files in a folder and its subfolders, and the subfolders that cannot be opened, sorted.

    `suffixes` are those of the files, in lower case.
    """
    closed: list[OSError] = []
    try:
        paths = [
            Path(parent, name)
            for parent, _, names in os.walk(folder, onerror=closed.append)
            for name in names
            if name.lower().endswith(suffixes)
        ]
    except RecursionError as error:
        raise InputError(f"{folder}: its folders are nested too deep; give those below it") from error
    return sorted([*paths, *(Path(error.filename) for error in closed)])


def match_files(pattern: Path) -> list[Path]:
    """Return the files that match, sorted, without the hidden ones; unlike in the glob module, `**` follows no links."""
    fixed = next(number for number, part in enumerate(pattern.parts) if glob.has_magic(part))
    try:
        matches = Path(*pattern.parts[:fixed]).glob(str(Path(*pattern.parts[fixed:])))
        return sorted(match for match in matches if match.is_file() and not any(name[0] == "." for name in match.parts[fixed:]))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{pattern}: cannot be matched ({error}); give folders or files") from error
