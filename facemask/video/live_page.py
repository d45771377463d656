"""The page as an output of one source."""

from facemask.labels import display_name
from facemask.types import FrameResult
from facemask.video.frame_images import FrameImages
from facemask.video.live_server import Camera, State
from facemask.video.outputs import FrameOutput, Statistics, count_faces


class LivePage(FrameOutput):
    """Shows the video and the counts to browsers."""

    def __init__(self, camera: Camera, statistics: Statistics) -> None:
        """`camera` is the source's place on the page. `statistics` must receive each frame before this output does."""
        self._camera, self._statistics = camera, statistics

    def write(self, result: FrameResult, images: FrameImages) -> None:
        people = {display_name(label): number for label, number in self._statistics.people.most_common() if label}
        state = State(self._statistics.frames, result.time, self._statistics.rate, 0.0, count_faces(result), people)
        self._camera.show(images, state)

    def stalled(self, seconds: float) -> None:
        self._camera.show_stall(seconds)

    def close(self) -> None:
        self._camera.end()
