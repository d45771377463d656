"""The photos that the face detector learns from, face_detector/sources.py, and the mining of background crops."""

import shutil

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("keras")

from PIL import Image  # noqa: E402

from face_detector import mine, sources  # noqa: E402
from face_detector.network import build_network, start_from_onnx  # noqa: E402
from facemask.errors import InputError  # noqa: E402
from facemask.models.center_face import CenterFaceDetector  # noqa: E402
from facemask.training.dataset import AnnotatedPhoto  # noqa: E402
from facemask.training.formats import read_annotated_photos  # noqa: E402
from tests.helpers import EXAMPLES, PEOPLE, ROOT  # noqa: E402

SHIPPED = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME


def annotated(tmp_path, name: str, height: int, count: int) -> list[AnnotatedPhoto]:
    path = tmp_path / f"{name}.png"
    cv2.imwrite(str(path), np.zeros((100, 200, 3), np.uint8))
    box = np.array([(10, 10, 10 + height, 10 + height)], float)
    return [AnnotatedPhoto(path, box, ("face",), np.array([(0, 0, 5, 5)], float))] * count


def test_annotated_photos_are_sources_by_prefix(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MIN_SOURCE", 3)
    photos = annotated(tmp_path, "street_1", 10, 3) + annotated(tmp_path, "news1", 40, 4) + annotated(tmp_path, "x", 20, 1)
    unannotated = {str(tmp_path / "news1.png"): [(50, 50, 60, 60)], str(tmp_path / "other" / "street_1.png"): [(1, 1, 9, 9)]}
    street, news, rest = sources.read_annotated(photos, 0.8, unannotated)
    assert [len(source.photos) for source in (street, news, rest)] == [3, 4, 1]
    assert [source.weight for source in (street, news, rest)] == pytest.approx([0.3, 0.4, 0.1])
    assert street.sides == pytest.approx((240, 1400)) and news.sides == pytest.approx((220, 350))
    np.testing.assert_array_equal(news.photos[0].ignored, [(0, 0, 5, 5), (50, 50, 60, 60)])
    np.testing.assert_array_equal(street.photos[0].ignored, [(0, 0, 5, 5)])


def test_a_photo_with_an_orientation_tag_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[sources.ORIENTATION] = 6
    Image.fromarray(np.zeros((30, 60, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    photo = sources.load_photo(tmp_path / "turned.jpg")
    assert photo.size == (30, 60)
    assert cv2.imdecode(np.frombuffer(photo.encoded, np.uint8), cv2.IMREAD_IGNORE_ORIENTATION | 1).shape == (60, 30, 3)


def test_pseudo_labels_and_false_positives_are_what_the_network_finds(tmp_path):
    network = build_network()
    start_from_onnx(network, SHIPPED)
    for folder in ("bare", "nobody"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
    shutil.copy(EXAMPLES / "astronaut.jpg", tmp_path / "photos" / "bare")
    cv2.imwrite(str(tmp_path / "photos" / "nobody" / "grey.png"), np.full((99, 99, 3), 127, np.uint8))
    cache = tmp_path / "cache.json"
    source = sources.read_unboxed(network, tmp_path / "photos", 0.5, cache)
    (photo,) = source.photos
    np.testing.assert_allclose(photo.boxes, [(142, 60, 237, 178)], atol=15)
    cache.write_text(cache.read_text().replace("astronaut.jpg", "missing.jpg"))
    with pytest.raises(FileNotFoundError):  # so the cache is what counts from now on
        sources.read_unboxed(network, tmp_path / "photos", 0.5, cache)
    negatives = sources.read_negatives(network, tmp_path / "photos", 0.5, tmp_path / "negatives.json")
    assert [len(photo.false_positives) for photo in negatives.photos] == [1, 0]


def test_photos_that_cannot_be_read_are_left_out_and_counted(tmp_path, caplog):
    network = build_network()
    start_from_onnx(network, SHIPPED)
    (tmp_path / "nobody").mkdir()
    cv2.imwrite(str(tmp_path / "nobody" / "grey.png"), np.full((99, 99, 3), 127, np.uint8))
    (tmp_path / "nobody" / "cut.png").write_bytes((tmp_path / "nobody" / "grey.png").read_bytes()[:40])
    negatives = sources.read_negatives(network, tmp_path, 0.5, tmp_path / "negatives.json")
    assert len(negatives.photos) == 1
    assert any(message.startswith("1 photos not used: cannot be read, as ") for message in caplog.messages)


def test_negatives_without_photos(tmp_path):
    with pytest.raises(InputError) as error:
        sources.list_photos(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: no images in this folder; known are JPEG, ")


def test_negatives_are_found_by_content_and_others_counted(tmp_path, caplog):
    (tmp_path / "sub").mkdir()
    for name in ("a.avif", "sub/b", "c.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, "AVIF" if name == "a.avif" else "PNG")
    (tmp_path / "d.jxl").write_bytes(b"\xff\x0a" + bytes(50))
    assert sources.list_photos(tmp_path) == [tmp_path / name for name in ("a.avif", "c.jpg", "sub/b")]
    assert caplog.messages == [f"{tmp_path}: not read: 1 JPEG XL"]


def test_mine_cuts_out_what_touches_no_annotated_face(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(mine, "CONFIDENCE", 0.5)
    for part in ("images", "annotations"):
        (tmp_path / "photos" / part).mkdir(parents=True)
    shutil.copy(EXAMPLES / "people.jpg", tmp_path / "photos" / "images")
    box = "<object><name>face</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    objects = "".join(box.format(*face) for face in PEOPLE[2:])
    (tmp_path / "photos" / "annotations" / "people.xml").write_text(f"<annotation>{objects}</annotation>")
    output = tmp_path / "background"
    command = ["-d", str(tmp_path / "photos"), "--complete", str(tmp_path / "photos"), "-f", str(SHIPPED), "-o", str(output)]
    assert mine.main(command) == 0
    assert f"2 crops of 1 photo, in {output}" in capfd.readouterr().err
    crops = read_annotated_photos(output)
    assert [crop.labels for crop in crops] == [("background",)] * 2
    for crop in crops:
        height, width = cv2.imread(str(crop.path)).shape[:2]
        x1, y1, x2, y2 = crop.boxes[0]
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height and max(x2 - x1, y2 - y1) > 0.4 * max(width, height)
    assert mine.main(command) == 1
    assert capfd.readouterr().err.splitlines()[-1] == f"error: {output}: exists already; remove it, or give another -o"


def test_mine_that_fails_leaves_no_output(tmp_path, capfd):
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "broken.jpg").write_bytes(b"noise")
    output = tmp_path / "background"
    command = ["-d", str(tmp_path / "things"), "-f", str(SHIPPED), "-o", str(output)]
    assert mine.main(command) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "error: -d: none of these photos can be read; name others"
    assert [path.name for path in tmp_path.iterdir()] == ["things"]
