"""Process a video: count its frames."""

import time

RATE_SMOOTHING = 0.95  # weight of the past in the frame rate shown; frames come in bursts


class FrameRate:
    """Counts frames, and says how many a second there are now."""

    def __init__(self) -> None:
        self.count, self.value = 0, 0.0
        self._start = self._last = time.perf_counter()
        self._interval = 0.0

    def add(self) -> None:
        now = time.perf_counter()
        past = RATE_SMOOTHING if self.count else 0.0
        self._interval = past * self._interval + (1 - past) * (now - self._last)
        self._last = now
        self.count += 1
        self.value = 1 / max(self._interval, 1e-9)

    @property
    def seconds(self) -> float:
        """Return the time from the start to the last frame."""
        return self._last - self._start
