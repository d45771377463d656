"""What tests share: the folders of the repository, faces annotated by hand, data sets, videos and cameras made for a test."""

import csv
import threading
import time
from collections.abc import Iterable
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from facemask.types import Face

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
EXAMPLES = ROOT / "examples"
CORRUPT = "corrupt or incompatible model (its checksum is wrong or missing); copy it again, or train it again"
# Of the faces of examples/people.jpg, by hand: from forehead to chin, cheek to cheek; row by row.
PEOPLE = [
    (66, 84, 232, 290), (370, 60, 516, 240), (664, 110, 834, 310), (1000, 70, 1138, 232),
    (86, 432, 222, 594), (376, 396, 546, 578), (694, 414, 826, 584), (972, 382, 1130, 574),
]  # fmt: skip
# Ways to write interlaced video: name, codec and the encoder's options of `write_video`.
INTERLACED: dict[str, tuple[str, str, dict[str, str]]] = {
    "H.264": ("a.mp4", "libx264", {"x264-params": "tff=1"}),
    "H.264 in a transport stream": ("a.ts", "libx264", {"x264-params": "tff=1"}),
    "MPEG-2": ("a.mpg", "mpeg2video", {"flags": "+ildct+ilme", "b": "8000000"}),
    "MPEG-2 in a transport stream": ("a.ts", "mpeg2video", {"flags": "+ildct+ilme", "b": "8000000"}),
    "DV": ("a.dv", "dvvideo", {}),
}
BITS = 12  # of a frame's number, as black and white blocks across the image


def uncertain_face() -> tuple[np.ndarray, Face]:
    """Return an image whose left edge cuts a face in half, and this face, of which the detector is uncertain.

    Its confidence, by the float32 network, is less than half of the default minimum.
    """
    from facemask.models.center_face import CenterFaceDetector

    detector = CenterFaceDetector.load(ROOT / "face_detector" / CenterFaceDetector.FILE_NAME)
    image = cv2.imread(str(EXAMPLES / "astronaut.jpg"))
    for left, top in product(range(200, 225), range(0, 32, 8)):  # the face is 142 to 237 px from the left
        cut = np.ascontiguousarray(image[top:, left:])
        faces = detector.detect(cut, 0.1)
        if len(faces) == 1 and 0.15 <= faces[0].confidence <= 0.22:
            return cut, faces[0]
    raise AssertionError("the face detector is certain of each half of a face")


def write_class_folders(folder: Path) -> None:
    """Write forty views of the example faces, bare and masked, as photos in class folders."""
    from facemask.training.augment import augment
    from facemask.training.crops import FacePatch

    faces = {"astronaut": (142, 60, 237, 178), "obama": (238, 79, 474, 379), "biden": (300, 120, 560, 480)}
    rng = np.random.default_rng(0)
    for label, suffix in (("with_mask", "_mask"), ("without_mask", "")):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            name = list(faces)[number % 3]
            image = cv2.imread(str(EXAMPLES / f"{name}{suffix}.jpg"))
            cv2.imwrite(str(folder / label / f"{number}.png"), augment(FacePatch(image, faces[name]), 96, 0.2, rng))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbered(number: int, width: int = 192, height: int = 64) -> np.ndarray:
    """Return an image that shows its number, for `number_of`."""
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8), width // BITS)
    return np.dstack([np.tile(row, (height, 1))] * 3)


def number_of(image: np.ndarray) -> int:
    """Return the number that the lowest rows of an image show."""
    blocks = np.array_split(image[-8:].mean(axis=(0, 2)), BITS)
    return sum(int(np.median(block) > 127) << bit for bit, block in enumerate(blocks))


def write_video(
    path: Path,
    images: Iterable[np.ndarray],
    codec: str = "libx264",
    aspect: Fraction = Fraction(1),
    rotation: int = 0,
    **options: str,
) -> Path:
    """Write `images` at 25 frames per second; `aspect` is that of a pixel, `options` are the encoder's."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        images = list(images)
        stream.height, stream.width = images[0].shape[:2]
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return path


def write_sound_video(
    path: Path,
    frames: int,
    codec: str = "aac",
    first: float = 0.0,
    sound: float | None = None,
    image: np.ndarray | None = None,
) -> Path:
    """Write `frames` frames, the first at `first` s, and noise from 0 s on, for `sound` s (None: as long as the frames).

    The frames show `image`; None numbers them.
    """
    import av

    rate = 16000  # Hz
    samples = np.random.default_rng(0).integers(-9000, 9000, rate, np.int16)
    sound = frames / 25 + first if sound is None else sound
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.height, video.width = (64, 192) if image is None else image.shape[:2]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(audio.format, "mono", rate)
        packets = []
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(number) if image is None else image, format="bgr24")
            frame.pts, frame.time_base = number + round(first * 25), Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode()
        step = audio.codec_context.frame_size or 1024
        for start in range(0, round(sound * rate), step):
            frame = av.AudioFrame.from_ndarray(np.roll(samples, -start)[None, :step], format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            for resampled in resampler.resample(frame):
                packets += audio.encode(resampled)
        packets += audio.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def interlace(image: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Return a frame whose even rows are of `image`, and whose odd rows are of `later`."""
    frame = image.copy()
    frame[1::2] = later[1::2]
    return frame


def hide_first_frames(path: Path, images: Iterable[np.ndarray], hidden: int) -> Path:
    """Write an MP4 file at 25 frames per second whose edit list hides the first images."""
    import av

    images = list(images)
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "g": "250"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        frames = [av.VideoFrame.from_ndarray(image, format="bgr24") for image in images]
        for packet in [packet for frame in [*frames, None] for packet in stream.encode(frame)]:
            shift = round(hidden / 25 / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            container.mux(packet)
    return path


class Camera:
    """A camera on the network: motion JPEG over HTTP on this machine, which can be cut, refused and stalled.

    It sends images at a rate, whether anybody is connected or not; then it ends.
    """

    def __init__(self, images: Iterable[np.ndarray], rate: float, cuts: dict[int, float] = {}, stall_at: int | None = None):  # noqa: B006
        """At each key of `cuts` connections are cut, and refused for its value in seconds; at `stall_at` the stream stalls."""
        self.jpegs = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for image in images]
        self.rate, self.cuts, self.stall_at = rate, dict(cuts), stall_at
        self.sent: list[int] = []  # numbers of the images that were sent
        self.connections = 0
        self.number = -1
        self.generation = 0
        self.refusing_until = 0.0
        self.changed = threading.Condition()
        self.started = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if time.monotonic() < camera.refusing_until or camera.number >= len(camera.jpegs):
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
                self.end_headers()
                camera.connections += 1
                generation, last = camera.generation, camera.number
                camera.started.set()
                while True:
                    with camera.changed:
                        camera.changed.wait_for(lambda last=last: camera.number > last or camera.generation > generation)
                        last = camera.number
                    if camera.generation > generation:
                        return
                    data = camera.jpegs[last]
                    self.wfile.write(
                        b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n"
                    )
                    camera.sent.append(last)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # readers go

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/video"

    def __enter__(self) -> "Camera":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self) -> None:
        self.started.wait()
        start = time.monotonic()
        for number in range(len(self.jpegs)):
            time.sleep(max(start + number / self.rate - time.monotonic(), 0))
            if number == self.stall_at:
                return
            if number in self.cuts:
                self.refusing_until = time.monotonic() + self.cuts[number]
                self._cut()
            with self.changed:
                self.number = number
                self.changed.notify_all()
        time.sleep(1 / self.rate)
        self.number = len(self.jpegs)
        self._cut()

    def _cut(self) -> None:
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def __exit__(self, *_: object) -> None:
        self._cut()
        self.server.shutdown()
        self.server.server_close()
