import numpy as np
import pytest

from facemask import drawing
from facemask.drawing import draw_detections, draw_status, draw_tracked, pixelate_faces
from facemask.labels import STYLES, display_name, percent
from facemask.types import Detection


def detection(box, label="with_mask", probability=0.8):
    return Detection(box, 0.9, label, probability, {label: probability, "other": 1 - probability})


def record_texts(monkeypatch):
    """Return the list of the texts that are drawn from now on."""
    texts, put_label = [], drawing._put_label
    monkeypatch.setattr(drawing, "_put_label", lambda canvas, label: texts.append(label.text) or put_label(canvas, label))
    return texts


def changed_box(image, drawn):
    """Return the bounding box of what was drawn."""
    rows, columns = np.nonzero((image != drawn).any(axis=-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("with_mask", "Mask"),
        ("without_mask", "No mask"),
        ("mask_weared_incorrect", "Mask worn wrong"),
        ("face_shield", "Face shield"),
    ],
)
def test_display_name(label, text):
    assert display_name(label) == text


def test_draw_detections_leaves_the_image_alone():
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw_detections(image, [detection((100, 80, 180, 160))])
    assert not image.any()
    assert tuple(drawn[120, 100]) == STYLES["with_mask"][1]
    assert tuple(drawn[120, 179]) == STYLES["with_mask"][1]
    assert not drawn[120, 140].any()


def test_draw_detections_of_none():
    image = np.full((20, 30, 3), 9, np.uint8)
    np.testing.assert_array_equal(draw_detections(image, []), image)


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (400, 5), (1200, 1600)])
@pytest.mark.parametrize("label", ["without_mask", "something_else"])
def test_draw_detections_anywhere(size, label):
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    drawn = draw_detections(image, [detection((0, 0, width, height), label), detection((width - 1, height - 1, width, height))])
    assert drawn.shape == image.shape and drawn.any()


def test_draw_status_writes_at_the_bottom():
    image = np.zeros((100, 200, 3), np.uint8)
    draw_status(image, "25 frames/s")
    assert image[80:].any() and not image[:70].any()


def test_draw_tracked_shows_the_track_id():
    image = np.zeros((200, 300, 3), np.uint8)
    faces = [Detection((100, 80, 180, 160), 0.9, "with_mask", 0.8, {"with_mask": 0.8}, track) for track in (None, 3, 8)]
    drawn = [draw_tracked(image, [face]) for face in faces]
    np.testing.assert_array_equal(drawn[0], draw_detections(image, [detection((100, 80, 180, 160))]))
    assert not np.array_equal(drawn[1], drawn[0]) and not np.array_equal(drawn[1], drawn[2])
    assert not image.any()


@pytest.mark.parametrize(
    ("box", "square"),
    [
        pytest.param((100, 60, 180, 140), (84, 44, 196, 156), id="square"),
        pytest.param((100, 60, 120, 140), (54, 44, 166, 156), id="a strip of a face"),
        pytest.param((0, 0, 40, 50), (0, 0, 55, 60), id="corner"),
        pytest.param((260, 160, 300, 200), (252, 152, 300, 200), id="other corner"),
        pytest.param((0, 0, 300, 200), (0, 0, 300, 200), id="whole image"),
        pytest.param((150, 100, 151, 101), (150, 100, 151, 101), id="a pixel"),
    ],
)
def test_pixelate_faces(box, square):
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    original = image.copy()
    hidden = pixelate_faces(image, [box])
    np.testing.assert_array_equal(image, original)
    x1, y1, x2, y2 = square
    assert len(np.unique(hidden[y1:y2, x1:x2].reshape(-1, 3), axis=0)) <= 25
    changed = (hidden != image).any(axis=2)
    changed[max(y1 - 1, 0) : y2 + 2, max(x1 - 1, 0) : x2 + 2] = False
    assert not changed.any()


def test_pixelate_faces_of_none():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(pixelate_faces(image, []), image)


@pytest.mark.parametrize("draw", [draw_detections, draw_tracked])
@pytest.mark.parametrize("size", [(372, 538), (1200, 1600)])
def test_unsure_label_has_a_question_mark_and_a_thin_box(monkeypatch, draw, size):
    texts = record_texts(monkeypatch)
    borders = []
    for probability in (0.59, 0.6):
        face = Detection((100, 80, 180, 160), 0.9, "with_mask", probability, {"with_mask": probability})
        drawn = draw(np.zeros((*size, 3), np.uint8), [face])
        assert tuple(drawn[120, 100]) == STYLES["with_mask"][1]
        borders.append(np.count_nonzero(drawn[120, :140].any(axis=-1)))  # px across the left side
    assert texts == ["Mask? 59%", "Mask 60%"]
    assert borders[0] < borders[1]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.997, 0, "99.7%"),
        (0.99999, 0, "99.9%"),
        (0.99999, 1, "99.9%"),
        (1.0, 0, "100%"),
        (1.0, 1, "100.0%"),
        (0.99, 0, "99%"),
        (0.5, 1, "50.0%"),
    ],
)
def test_percent_never_rounds_to_certainty(value, digits, text):
    assert percent(value, digits) == text


def crowd(rows, columns, size, gap, label="with_mask"):
    """Return faces in a grid, from 20 px to the left and above."""
    return [
        detection(
            (20 + (size + gap) * x, 20 + (size + gap) * y, 20 + (size + gap) * x + size, 20 + (size + gap) * y + size), label
        )
        for y in range(rows)
        for x in range(columns)
    ]


def test_crowd_has_a_legend_with_counts_instead_of_labels(monkeypatch):
    texts = record_texts(monkeypatch)
    faces = [
        *crowd(8, 12, 8, 4),
        *(detection(face.box, "without_mask") for face in crowd(1, 3, 8, 4)),
        detection((250, 20, 258, 28), "with_mask", 0.5),
    ]
    image = np.zeros((278, 400, 3), np.uint8)
    draw_detections(image, faces)
    assert texts == ["Mask: 96", "No mask: 3", "Mask?: 1"]


@pytest.mark.parametrize("draw", [draw_detections, draw_tracked])
def test_labels_cover_no_face_and_no_other_label(monkeypatch, draw):
    rng = np.random.default_rng(0)
    boxes = [(int(x), int(y), int(x + size), int(y + size)) for x, y, size in rng.integers((0, 0, 12), (700, 500, 60), (60, 3))]
    placed, put_label = [], drawing._put_label
    monkeypatch.setattr(drawing, "_put_label", lambda canvas, label: placed.append(label) or put_label(canvas, label))
    draw(np.zeros((560, 760, 3), np.uint8), [detection(box) for box in boxes])
    labels = [label.box for label in placed if "%" in label.text]
    assert len(labels) > 10 and len(placed) - len(labels) == 1  # a legend of one colour
    for number, box in enumerate(labels):
        assert not drawing._overlap(box, np.array(boxes)).any()
        assert not drawing._overlap(box, np.array(labels[:number] + labels[number + 1 :])).any()
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= 760 and box[3] <= 560


def test_label_goes_below_a_face_at_the_upper_edge():
    image = np.zeros((300, 400, 3), np.uint8)
    drawn = draw_detections(image, [detection((100, 0, 180, 80))])
    assert changed_box(image, drawn)[1] == 0 and drawn[82:95, 100:180].any() and not drawn[4:75, 105:175].any()


def test_face_that_fills_the_image_has_its_label_inside(monkeypatch):
    texts = record_texts(monkeypatch)
    draw_detections(np.zeros((400, 400, 3), np.uint8), [detection((0, 0, 400, 400))])
    assert texts == ["Mask 80%"]


def test_small_image_has_a_legend(monkeypatch):
    texts = record_texts(monkeypatch)
    image = np.zeros((64, 64, 3), np.uint8)
    drawn = draw_detections(image, [detection((23, 11, 39, 30), "without_mask", 0.997)])
    assert texts in (["No mask: 1"], ["1"]) and drawn.shape == image.shape  # OpenCV 4's letters are wider
    assert not drawn[12:29, 24:38].any()  # the face


def test_text_size_follows_the_image(monkeypatch):
    """Seen on the same screen, letters are as high in a photo of 12 megapixels as in one a fifth as wide."""
    heights = []
    for scale in (1, 5):
        sizes, put_label = [], drawing._put_label
        monkeypatch.setattr(drawing, "_put_label", lambda _, label, sizes=sizes: sizes.append(label.text_size[1]))
        image = np.zeros((600 * scale, 800 * scale, 3), np.uint8)
        draw_detections(image, [detection(tuple(scale * side for side in (300, 200, 400, 320)))])
        monkeypatch.setattr(drawing, "_put_label", put_label)
        heights += sizes
    assert heights[1] / 5 == pytest.approx(heights[0], abs=1.5)


def test_letters_of_a_small_face_in_a_large_photo_can_be_read(monkeypatch):
    """They are 8 px high when the photo is seen 1,280 px wide."""
    labels = []
    monkeypatch.setattr(drawing, "_put_label", lambda _, label: labels.append(label))
    draw_detections(np.zeros((3000, 4000, 3), np.uint8), [detection((1000, 1000, 1060, 1080))])
    assert [label.text for label in labels] == ["Mask 80%"] and labels[0].text_size[1] * 1280 / 4000 >= 7


def test_unsure_box_of_a_small_face_is_its_corners():
    image = np.zeros((400, 400, 3), np.uint8)
    drawn = [draw_detections(image, [detection((100, 80, 116, 96), "with_mask", value)]) for value in (0.59, 0.6)]
    assert not drawn[0][88, 100:116].any() and drawn[1][88, 100].any()
    assert drawn[0][80, 100].any() and drawn[0][95, 115].any()
