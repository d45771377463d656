"""Write a folder with both networks in a format, a README, and an example that runs them."""

import json
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from facemask.errors import InputError
from facemask.export.calibration import calibration_inputs
from facemask.export.formats import FORMATS, Format
from facemask.export.networks import read_classifier, read_face_detector
from facemask.io.outputs import make_folder
from facemask.models.center_face import CenterFaceDetector, PlattScaling
from facemask.models.model_info import ModelInfo

MIN_SCORE = 0.5  # of the example's faces: the peak alone, which says less than the votes of the cells around it
README = """# Face-mask networks, {name}

`python run.py photo.jpg` (it needs numpy, opencv-python and {runtime}) prints a line per face. Made by
`python -m facemask export --format {name} --size {size}`.

Both networks take one image, {inputs}, RGB, 0 to 255: scaling is inside the network. Outputs: {outputs}.

## face_detector: {size} x {size} px

Scale the image so that its longest side has {size} px, and put it at the top left of a black square. The output has a cell for
each 4 x 4 px, with five values:

0. the logit of a score. A cell is a face if the score, 1 / (1 + exp(-logit)), is above {min_score} and none of its eight
   neighbours has a higher one;
1. y and 2. x of the face's centre, in cells from the centre of this cell;
3. and 4. the logarithms of the face's height and width in cells.

So, in px of the square, for the cell in row r and column c: centre = 4 (c + 0.5 + x), 4 (r + 0.5 + y); height = 4 exp(value 3);
width = 4 exp(value 4). Then drop boxes that overlap a better one (intersection over union above 0.5).

The program itself takes the mean of the boxes that the cells around the peak predict, and calibrates the score
(`decode` and `PlattScaling` in facemask/models/center_face.py; slope {slope:.4f}, shift {shift:.4f}); it finds large faces in
smaller copies of the image, and small ones in enlarged tiles. Here, faces from about 8 to 200 px in the square are found.

## mask_classifier: {side} x {side} px

Cut out the square around a face's box{margin}, without what is outside the image, and stretch it to {side} x {side} px. The
outputs are probabilities of {classes}. `background` is a crop that shows no face.
"""


def export(name: str, output: Path, model: Path, face_detector: Path, size: int, photos: Sequence[Path]) -> None:
    """Write the folder `output`, which must not exist, with the networks in the format of that name.

    `model` and `face_detector` are as for `load_detector`; `size` is the side of the face detector's input in px, a multiple of
    32. `photos` give the ranges of 8-bit integers. Raises InputError if a file cannot be used or the folder exists.
    """
    output = output.resolve() if output.name in ("", "..") else output
    partial = output.with_name(f"{output.name}.partial")
    for folder in (output, partial):
        if folder.exists():
            raise InputError(f"{folder}: exists already; remove it, or give another folder")
    faces, calibration = read_face_detector(face_detector, size)
    classifier, info = read_classifier(model)
    form = FORMATS[name]
    inputs: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    if form.is_calibrated:
        inputs = calibration_inputs(photos, face_detector, size, info)
    make_folder(partial)
    try:
        for network, own in zip((faces, classifier), inputs, strict=True):
            form.write(network, partial, own)
        write_texts(partial, name, form, size, calibration, info)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_texts(folder: Path, name: str, form: Format, size: int, calibration: PlattScaling, info: ModelInfo) -> None:
    """Write README.md, info.json and run.py."""
    facts = {
        "face_detector": {"size": size, "stride": CenterFaceDetector.STRIDE, "min_score": MIN_SCORE},
        "mask_classifier": {"size": info.input_size, "margin": info.margin, "classes": info.classes},
    }
    (folder / "info.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    example = files("facemask.export").joinpath("example.txt").read_text(encoding="utf-8")
    imports, _, loader = form.loader.partition("\n\n\n")
    example = example.replace("RUNTIME", form.runtime).replace("# LOADER", loader.strip())
    example = example.replace("import numpy as np\n", f"import numpy as np\n{imports}\n", 1)
    (folder / "run.py").write_text(example, encoding="utf-8")
    margin = f", widened by {info.margin:.0%} of its side on each side" if info.margin else ""
    text = README.format(
        name=name, runtime=form.runtime, size=size, inputs=form.inputs, outputs=form.outputs, min_score=MIN_SCORE,
        slope=calibration.slope, shift=calibration.shift, side=info.input_size, margin=margin, classes=", ".join(info.classes),
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")
