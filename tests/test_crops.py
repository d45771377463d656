import numpy as np
import pytest

from facemask.crops import crop_face, square_around


@pytest.mark.parametrize(
    ("box", "margin", "square"),
    [
        pytest.param((10, 10, 30, 30), 0.0, (10, 10, 30, 30), id="square"),
        pytest.param((10, 10, 30, 50), 0.0, (0, 10, 40, 50), id="portrait"),
        pytest.param((10, 10, 50, 30), 0.25, (0, -10, 60, 50), id="landscape with margin"),
    ],
)
def test_square_around(box, margin, square):
    assert square_around(box, margin) == square


def test_crop_face_is_the_box():
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:60, 30:70] = (1, 2, 3)
    crop = crop_face(image, (30, 20, 70, 60), 40, 0.0)
    assert crop.shape == (40, 40, 3)
    assert (crop == (1, 2, 3)).all()


@pytest.mark.parametrize("box", [(0, 0, 5, 5), (95, 95, 100, 100), (0, 0, 100, 100), (50, 50, 51, 51)])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_crop_face_at_borders(box, margin):
    image = np.full((100, 100, 3), 7, np.uint8)
    crop = crop_face(image, box, 32, margin)
    assert crop.shape == (32, 32, 3)
    assert (crop == 7).all()


def test_crop_face_of_one_pixel_image():
    assert crop_face(np.zeros((1, 1, 3), np.uint8), (0, 0, 1, 1), 16, 0.15).shape == (16, 16, 3)
