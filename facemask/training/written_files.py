"""Write the photos of a data set: copies under names that are free, and faces cut out."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from facemask.boxes import square_around
from facemask.io.images import read_image, write_image

CUT_MARGIN = 0.25  # of a face's longer side, kept around it when it is cut out: the face detector needs some


class PhotoWriter:
    """Copies photos into a new folder; photos of one name get different ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[tuple[Path, str]] = set()

    def copy(self, photo: Path, part: Path) -> Path:
        """Copy a photo into a subfolder; return its new path. Its stem is that of no other file there."""
        path = self.free_path(part, photo.name)
        shutil.copyfile(photo, path)
        return path

    def free_path(self, part: Path, name: str) -> Path:
        """Return a path in a subfolder, which is made, for a file of that name, or with a number if its stem is taken."""
        (self.folder / part).mkdir(parents=True, exist_ok=True)
        stem, number = Path(name).stem, 0
        while (part, f"{stem}-{number}".casefold() if number else stem.casefold()) in self._taken:
            number += 1
        stem = f"{stem}-{number}" if number else stem
        self._taken.add((part, stem.casefold()))
        return self.folder / part / f"{stem}{Path(name).suffix}"


def cut_out(photo: Path, box: Sequence[float], path: Path) -> None:
    """Write the square around a box, x1, y1, x2, y2 in pixels, of a photo as an image, if any of it is in the photo."""
    image = read_image(photo)
    x1, y1, x2, y2 = (round(side) for side in square_around(tuple(box), CUT_MARGIN))
    cut = image[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    if cut.size:
        write_image(path, cut)
