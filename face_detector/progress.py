"""Progress bars of long work on photos."""

from collections.abc import Callable, Sequence


def progress(description: str) -> Callable[[Sequence], Sequence]:
    """Return what wraps a sequence of photos in a progress bar."""
    from tqdm import tqdm

    return lambda photos: tqdm(photos, desc=description, unit="photo", disable=None)
