from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from facemask.errors import InputError
from facemask.models.face_detectors import load_face_detector
from facemask.video.decoder import VideoDecoder
from tests.helpers import EXAMPLES, INTERLACED, ROOT, interlace, number_of, numbered, write_video

PIXELS = 250_000_000


def decode(path: Path, width: int | None = None) -> list:
    decoder = VideoDecoder(str(path), path.name, width, PIXELS, None)
    frames = []
    while (frame := decoder.read()) is not None:
        frames.append(frame)
    decoder.close()
    return frames


def panned(number: int, shift: int = 12) -> np.ndarray:
    """Return the field `number` of a camera that pans over examples/people.jpg, `shift` px from field to field."""
    return cv2.imread(str(EXAMPLES / "people.jpg"))[40:616, number * shift : number * shift + 720]


def interlaced(count: int) -> list[np.ndarray]:
    return [interlace(panned(2 * number), panned(2 * number + 1)) for number in range(count)]


def combing(image: np.ndarray) -> float:
    """Return by how much more neighbouring rows differ than rows two apart: over 1 for the teeth of two fields."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float)
    return np.abs(grey[1:-1] - grey[:-2]).mean() / np.abs(grey[2:] - grey[:-2]).mean()


@pytest.mark.parametrize(("name", "codec", "options"), INTERLACED.values(), ids=INTERLACED)
def test_interlaced_video_is_deinterlaced(tmp_path, name, codec, options):
    images = interlaced(10)
    frames = decode(write_video(tmp_path / name, images, codec, **options))
    assert len(frames) == 10
    times = [frame.time - frames[0].time for frame in frames]
    assert times == pytest.approx([number / 25 for number in range(10)], abs=1e-3)
    assert max(combing(frame.image[:, :700]) for frame in frames) < 0.75 < min(map(combing, images))
    assert load_face_detector(ROOT / "face_detector").detect(frames[-1].image)


def test_frames_that_turn_interlaced_in_the_middle_keep_their_order(tmp_path):
    """Progressive frames pass; from the first interlaced frame on, frames pass through the filter, which holds one back."""
    first = write_video(tmp_path / "a.ts", map(numbered, range(5)), "mpeg2video", b="8000000").read_bytes()
    second = write_video(
        tmp_path / "b.ts", map(numbered, range(5, 9)), "mpeg2video", flags="+ildct+ilme", b="8000000"
    ).read_bytes()
    (tmp_path / "c.ts").write_bytes(first + second)
    assert [number_of(frame.image) for frame in decode(tmp_path / "c.ts")] == list(range(9))


@pytest.mark.parametrize("codec", ["libsvtav1", "libaom-av1", "mpeg4", "libvpx-vp9"])
def test_codecs(tmp_path, codec):
    if codec not in av.codec.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    options = {"preset": "12"} if codec == "libsvtav1" else {"cpu-used": "8"} if "lib" in codec else {}
    frames = decode(write_video(tmp_path / "a.mkv", map(numbered, range(8)), codec, **options))
    assert [number_of(frame.image) for frame in frames] == list(range(8))


@pytest.mark.parametrize(
    ("aspect", "width", "shape"),
    [
        pytest.param(Fraction(64, 45), None, (576, 1024, 3), id="wide pixels"),
        pytest.param(Fraction(64, 45), 512, (288, 512, 3), id="wide pixels, scaled down"),
        pytest.param(Fraction(64, 45), 2000, (576, 1024, 3), id="not scaled up"),
        pytest.param(Fraction(1, 2), None, (1152, 720, 3), id="tall pixels"),
        pytest.param(Fraction(100), None, (576, 720, 3), id="an aspect that cannot be"),
    ],
)
def test_pixels_become_square(tmp_path, aspect, width, shape):
    path = write_video(tmp_path / "a.mkv", [panned(0)] * 2, aspect=aspect)
    assert [frame.image.shape for frame in decode(path, width)] == [shape] * 2


def test_circle_in_pixels_that_are_not_square_is_a_circle(tmp_path):
    image = np.zeros((576, 720, 3), np.uint8)
    cv2.ellipse(image, (360, 288), (90, 128), 0, 0, 360, (255, 255, 255), -1)  # 90 px wide pixels are 128 px
    (frame,) = decode(write_video(tmp_path / "a.mkv", [image], aspect=Fraction(64, 45)))
    rows, columns = np.nonzero(frame.image[..., 0] > 127)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=3)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_turned_video_is_upright(tmp_path, rotation):
    image = np.zeros((96, 160, 3), np.uint8)
    image[:48, :80] = 255  # upper left
    path = write_video(tmp_path / "a.mp4", [image] * 2, rotation=rotation)
    turned = np.rot90(image, rotation // 90)  # counterclockwise, as FFmpeg counts
    for frame in decode(path):
        assert frame.image.shape == turned.shape
        assert np.abs(frame.image.astype(int) - turned).mean() < 5


def test_frames_that_are_not_wanted_are_not_converted(tmp_path):
    decoder = VideoDecoder(str(write_video(tmp_path / "a.mkv", map(numbered, range(4)))), "a", None, PIXELS, None)
    frames = [decoder.read(wanted=number == 2) for number in range(4)]
    assert [frame.image is not None for frame in frames] == [False, False, True, False]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert decoder.read() is None


def test_codec_without_a_decoder_is_named(tmp_path):
    path = write_video(tmp_path / "a.mp4", map(numbered, range(4)), "mpeg4")
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"zz91").replace(b"esds", b"free"))
    with pytest.raises(InputError) as error:
        VideoDecoder(str(path), "a.mp4", None, PIXELS, None)
    assert str(error.value) == "a.mp4: this FFmpeg has no decoder for its codec (zz91); convert it to H.264"


def test_sound_alone(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError) as error:
        VideoDecoder(str(tmp_path / "a.wav"), "a.wav", None, PIXELS, None)
    assert str(error.value) == "a.wav: has no video; give another file"


def test_frames_that_grow_beyond_the_limit(tmp_path):
    first = write_video(tmp_path / "a.ts", [numbered(0)] * 3, "mpeg2video").read_bytes()
    second = write_video(tmp_path / "b.ts", [numbered(0, 384, 128)] * 3, "mpeg2video").read_bytes()
    (tmp_path / "c.ts").write_bytes(first + second)
    decoder = VideoDecoder(str(tmp_path / "c.ts"), "c.ts", None, 192 * 64, None)
    with pytest.raises(InputError) as error:
        while decoder.read():
            pass
    assert str(error.value) == "c.ts: 384 x 128 pixels a frame are more than 12288; give --max-pixels more"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_missing_time_of_a_file_that_is_cut_off(tmp_path, suffix):
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    with av.open(str(tmp_path / f"a{suffix}"), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 64, "yuv420p"
        for number in range(100):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="bgr24")))
        container.mux(stream.encode())
    data = (tmp_path / f"a{suffix}").read_bytes()
    for is_cut in (False, True):
        (tmp_path / f"b{suffix}").write_bytes(data[: len(data) // 2] if is_cut else data)
        decoder = VideoDecoder(str(tmp_path / f"b{suffix}"), "b", None, PIXELS, None)
        times = []
        while (frame := decoder.read()) is not None:
            times.append(frame.time)
        assert decoder.duration == pytest.approx(4, abs=0.05)
        assert (len(times) < 80) == is_cut
        assert decoder.missing_time(times[-1]) == pytest.approx(4 - times[-1], abs=0.06)


def test_sound_that_goes_on_after_the_video_is_not_missing_video(tmp_path):
    """A container states the end of its longest stream; Matroska states each stream's own in a tag, which may be missing."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        video, audio = container.add_stream("mpeg4", rate=25), container.add_stream("pcm_s16le", rate=8000)
        video.width, video.height, video.pix_fmt = 192, 64, "yuv420p"
        for number in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(numbered(number), format="bgr24")))
        container.mux(video.encode())
        for number in range(50):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, 800 * number
            container.mux(audio.encode(frame))
    for data in ((tmp_path / "a.mkv").read_bytes(), (tmp_path / "a.mkv").read_bytes().replace(b"DURATION", b"NOTATION")):
        (tmp_path / "b.mkv").write_bytes(data)
        decoder = VideoDecoder(str(tmp_path / "b.mkv"), "b", None, PIXELS, None)
        while decoder.read():
            pass
        assert decoder.missing_time(0.96) < 0.1


def test_corrupt_frames_are_repaired_and_flagged(tmp_path):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (64, 192, 3), dtype=np.uint8) for _ in range(50)]
    path = write_video(tmp_path / "a.mp4", images, g="10")
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 400] = generator.bytes(400)
    path.write_bytes(data)
    frames = decode(path)
    assert len(frames) == 50
    assert [number for number, frame in enumerate(frames) if frame.is_corrupt] == [25]  # in the middle, as the damage


def test_frames_that_cannot_be_decoded_are_returned_as_such(tmp_path):
    path = write_video(tmp_path / "a.avi", map(numbered, range(10)), "mjpeg")
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)]
    assert len(starts) == 10
    broken = bytearray(data)
    broken[starts[4] : starts[5] - 8] = bytes(starts[5] - 8 - starts[4])
    path.write_bytes(broken)
    frames = decode(path)
    assert [number_of(frame.image) if frame.is_decoded else None for frame in frames] == [0, 1, 2, 3, None, 5, 6, 7, 8, 9]
    assert [frame.is_corrupt for frame in frames] == [number == 4 for number in range(10)]
