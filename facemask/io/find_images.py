"""Find the image files that files, folders and globs name."""

import glob
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from imutils.paths import list_files

from facemask.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_images(sources: Iterable[str]) -> list[Path]:
    """List the pictures that files, folders (with their subfolders) and globs name, each once, in order.

    Links to folders are not followed, as they may lead round in circles. A subfolder that cannot be looked into is listed
    itself, so that reading it says so. Raises InputError where a source names none.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            closed: list[OSError] = []
            try:
                deque(os.walk(source, onerror=closed.append), maxlen=0)
                names = [*list_files(source, validExts=IMAGE_SUFFIXES), *(error.filename for error in closed)]
            except RecursionError as error:
                raise InputError(f"{source}: has folders within folders, too deep; give those below it") from error
            paths = sorted(map(Path, names))
            if not paths:
                raise InputError(f"{source}: no pictures in this folder; known are {' '.join(IMAGE_SUFFIXES)}")
        elif path.exists() or not glob.has_magic(source):
            paths = [path]
        else:
            paths = sorted(_glob(path))
            if not paths:
                raise InputError(f"{source}: no file matches; check the pattern")
        found.update(dict.fromkeys(paths))
    return list(found)


def _glob(pattern: Path) -> list[Path]:
    """Return the files that match, without the hidden ones; unlike the glob module's, `**` follows no links."""
    fixed = next(number for number, part in enumerate(pattern.parts) if glob.has_magic(part))
    try:
        matches = Path(*pattern.parts[:fixed]).glob(str(Path(*pattern.parts[fixed:])))
        return [match for match in matches if match.is_file() and not any(name[0] == "." for name in match.parts[fixed:])]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{pattern}: cannot be matched ({error}); give folders or files") from error
