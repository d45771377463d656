import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import detect_mask_image
from facemask.api import load_detector
from facemask.io.images import read_image
from facemask.io.outputs import Place
from facemask.io.records import CSV_COLUMNS, MAX_STEM, name_outputs
from tests.helpers import EXAMPLES, ROOT, read_csv
from tests.helpers import PEOPLE as FACES

ASTRONAUT, PEOPLE = str(EXAMPLES / "astronaut.jpg"), str(EXAMPLES / "people.jpg")


def test_one_image(capsys, tmp_path):
    code = detect_mask_image.main(["-i", PEOPLE, "-o", str(tmp_path / "out.png"), "--jsonl", str(tmp_path / "out.jsonl")])
    out, err = capsys.readouterr()
    assert code == 0
    assert len(out.splitlines()) == 8
    assert "Mask " in out and "No mask " in out
    assert "[INFO] 1 of 1 images, 8 faces" in err
    assert read_image(tmp_path / "out.png").shape == (640, 1218, 3)
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["image"], record["width"], record["height"]) == (PEOPLE, 1218, 640)
    for face in record["faces"]:
        assert list(face) == ["box", "confidence", "label", "probability", "unsure", "probabilities"]
        assert face["probability"] == max(face["probabilities"].values()) == face["probabilities"][face["label"]]
        assert sum(face["probabilities"].values()) == pytest.approx(1, abs=2e-4)  # of rounded numbers


def test_missing_folders_are_made(tmp_path):
    outputs = {"-o": "a/new/out.jpg", "--jsonl": "b/new/out.jsonl", "--csv": "c/new/out.csv", "--report": "d/new/out.html"}
    arguments = [part for option, name in outputs.items() for part in (option, str(tmp_path / name))]
    assert detect_mask_image.main(["-i", ASTRONAUT, *arguments]) == 0
    assert [(tmp_path / name).is_file() for name in outputs.values()] == [True] * 4
    assert [row["label"] for row in read_csv(tmp_path / "c/new/out.csv")] == ["without_mask"]


def test_folder_with_a_bad_file(capsys, tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    shutil.copy(ASTRONAUT, tmp_path / "in" / "a.jpg")
    shutil.copy(ASTRONAUT, tmp_path / "in" / "sub" / "a.jpg")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"text")
    arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--csv", str(tmp_path / "out.csv")]
    assert detect_mask_image.main(arguments) == 1
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == [f"{tmp_path}/in/a.jpg", f"{tmp_path}/in/sub/a.jpg"]
    assert f"[WARN] {tmp_path}/in/bad.jpg: not a supported image, or corrupt" in err
    assert "[INFO] 2 of 3 images, 2 faces" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "a_2.jpg"]
    rows = read_csv(tmp_path / "out.csv")
    assert [row["label"] for row in rows] == ["without_mask"] * 2
    assert list(rows[0]) == list(CSV_COLUMNS)


def test_unsure_labels_have_a_question_mark(capsys, tmp_path, monkeypatch):
    """In what is printed and drawn, in JSON and in CSV; the label itself stays."""
    outputs = ["--jsonl", str(tmp_path / "o.jsonl"), "--csv", str(tmp_path / "o.csv"), "-o", str(tmp_path / "o.png")]
    monkeypatch.setattr("facemask.types.UNSURE", 1.1)
    assert detect_mask_image.main(["-i", ASTRONAUT, *outputs]) == 0
    assert capsys.readouterr().out.startswith(f"{ASTRONAUT}: No mask? ")
    (face,) = json.loads((tmp_path / "o.jsonl").read_text())["faces"]
    assert (face["label"], face["unsure"]) == ("without_mask", True)
    assert [row["unsure"] for row in read_csv(tmp_path / "o.csv")] == ["true"]
    unsure = cv2.imread(str(tmp_path / "o.png"))
    monkeypatch.undo()
    monkeypatch.setattr("facemask.video.display.has_display", lambda: False)
    assert detect_mask_image.main(["-i", ASTRONAUT, *outputs]) == 0
    assert capsys.readouterr().out.startswith(f"{ASTRONAUT}: No mask ")
    assert json.loads((tmp_path / "o.jsonl").read_text())["faces"] == [face | {"unsure": False}]
    assert (unsure != cv2.imread(str(tmp_path / "o.png"))).any()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.avif", ""),
        ("a.gif", ""),
        ("a.heic", ""),
        ("noeoi.jpg", "[WARN] {}: only the end marker of this JPEG is missing; it is read"),
        ("a.jxl", "error: {}: JPEG XL files are not read; convert it: djxl a.jxl a.png"),
    ],
)
def test_shared_cases(shared, capsys, name, message):
    path = shared / "cases" / "images" / name
    assert detect_mask_image.main(["-i", str(path)]) == int(message.startswith("error"))
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}: Mask 99.") is not message.startswith("error")
    assert [line for line in err.splitlines() if not line.startswith("[INFO]")] == ([message.format(path)] if message else [])


def test_no_face_is_a_result(capsys, tmp_path):
    cv2.imwrite(str(tmp_path / "black.png"), cv2.imread(ASTRONAUT) * 0)
    assert detect_mask_image.main(["-i", str(tmp_path / "black.png"), "--jsonl", str(tmp_path / "o.jsonl")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/black.png: no face found\n"
    assert json.loads((tmp_path / "o.jsonl").read_text())["faces"] == []


def test_confidence_limits_the_faces(capsys):
    assert detect_mask_image.main(["-i", ASTRONAUT, "-c", "1.0", "-m", str(ROOT / "mask_detector.onnx")]) == 0
    assert capsys.readouterr().out == f"{ASTRONAUT}: no face found\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-i", "none.jpg"], "error: none.jpg: cannot be read (No such file or directory); check the name", id="missing"),
        pytest.param(["-i", "text.jpg"], "error: text.jpg: not a supported image, or corrupt; give a JPEG, PNG, WebP, BMP or TIFF file", id="text"),
        pytest.param(["-i", "empty"], "error: empty: no images in this folder; known are JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP and TIFF", id="empty folder"),
        pytest.param(["-i", "*.png"], "error: *.png: no file matches; check the pattern", id="glob"),
        pytest.param(["-i", ASTRONAUT, "-m", "none.keras"], "error: none.keras: no such file; give -m the model that train_mask_detector.py wrote", id="no model"),
        pytest.param(["-i", ASTRONAUT, "-f", "none"], "error: none: no such face detector; give -f the folder face_detector/ or its .onnx file", id="no face detector"),
        pytest.param(["-i", ASTRONAUT, "-o", "a.jpg/b.jpg"], "error: a.jpg/b.jpg: a.jpg is not a folder; choose another place", id="file as output folder"),
        pytest.param(["-i", "a.jpg", "-o", "a.jpg"], "error: a.jpg: is an input, or another output too; choose another name for it", id="over the input"),
        pytest.param(["-i", "a.jpg", "-o", "."], "error: a.jpg: is an input, or another output too; choose another name for it", id="into the input's folder"),
        pytest.param(["-i", ASTRONAUT, "-o", "text.jpg/x"], "error: text.jpg/x: cannot make this folder (Not a directory); choose another place", id="file as folder"),
        pytest.param(["-i", "a.jpg", "--csv", "a.jpg"], "error: a.jpg: is an input, or another output too; choose another name for it", id="CSV over the input"),
        pytest.param(["-i", ASTRONAUT, "-o", "a.gif"], "error: a.gif: this image format cannot be written; use .jpg or .png, or name a folder: a.gif/", id="unknown suffix"),
        pytest.param(["-i", ASTRONAUT, PEOPLE, "-o", "b.jpg"], "error: b.jpg: is one file for 2 images; give -o a folder", id="one file for two"),
        pytest.param(["-i", "text.jpg", "--jsonl", "o.jsonl", "--csv", "o.csv"], "error: text.jpg: not a supported image, or corrupt; give a JPEG, PNG, WebP, BMP or TIFF file", id="nothing to write"),
        pytest.param(["-i", ASTRONAUT, "--jsonl", "empty"], "error: empty: is a folder; give a file name", id="folder as file"),
        pytest.param(["-i", ASTRONAUT, "--show"], "error: --show: there is no display, or OpenCV has no windows (opencv-python-headless); omit --show", id="no display"),
    ],
)  # fmt: skip
def test_bad_input(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_bytes(b"text")
    (tmp_path / "empty").mkdir()
    shutil.copy(ASTRONAUT, tmp_path / "a.jpg")
    assert detect_mask_image.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert [line for line in err.splitlines() if not line.startswith("[INFO]")] == [message]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "empty", "text.jpg"]


@pytest.mark.parametrize("arguments", [[], ["-i"], ["-i", "a.jpg", "-c", "1.5"], ["-i", "a.jpg", "-c", "nan"], ["--colour"]])
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as error:
        detect_mask_image.main(arguments)
    assert error.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_interrupted_run_keeps_its_results(capsys, tmp_path, monkeypatch):
    from facemask.detector import MaskDetector

    detect_file, calls = MaskDetector.detect_file, []

    def detect_once(self, path, *arguments, **options):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return detect_file(self, path, *arguments, **options)

    monkeypatch.setattr("facemask.parallel.thread_budget", lambda: (1, 1))  # one after the other, so that they can be counted
    monkeypatch.setattr(MaskDetector, "detect_file", detect_once)
    assert detect_mask_image.main(["-i", ASTRONAUT, PEOPLE, "--jsonl", str(tmp_path / "out.jsonl")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.jsonl"]
    assert json.loads((tmp_path / "out.partial.jsonl").read_text())["image"] == ASTRONAUT
    assert "out.partial.jsonl" in capsys.readouterr().err


def test_large_jpeg_is_reported_in_its_own_pixels(tmp_path):
    """Faces are detected at half its size; writing the annotated image, which is whole, changes no face."""
    large = cv2.resize(cv2.imread(PEOPLE), None, fx=4, fy=4)
    cv2.imwrite(str(tmp_path / "large.jpg"), large)
    arguments = ["-i", str(tmp_path / "large.jpg"), "--jsonl"]
    assert detect_mask_image.main([*arguments, str(tmp_path / "a.jsonl")]) == 0
    assert detect_mask_image.main([*arguments, str(tmp_path / "b.jsonl"), "-o", str(tmp_path / "out.png")]) == 0
    record, annotated = (json.loads((tmp_path / name).read_text()) for name in ("a.jsonl", "b.jsonl"))
    assert annotated == record | {"annotated": str(tmp_path / "out.png")}
    assert (record["width"], record["height"]) == (large.shape[1], large.shape[0])
    found = sorted((face["box"] for face in record["faces"]), key=lambda box: (box[1] > 4 * 330, box[0]))
    np.testing.assert_allclose(np.array(found) / 4, FACES, atol=20)
    assert cv2.imread(str(tmp_path / "out.png")).shape == large.shape


def test_large_jpeg_of_small_faces_is_decoded_whole(tmp_path):
    """Faces of 110 px in 3,840 are a crowd, so that tiles of the whole image are inferred, which shows faces of 40 px."""
    crowd, top = np.full((640, 3840, 3), 90, np.uint8), 0
    for scale, rows in ((0.55, 1), (0.2, 2)):
        small = cv2.resize(cv2.imread(PEOPLE), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width = small.shape[:2]
        for _ in range(rows):
            for left in range(0, crowd.shape[1] - width, width + 5):
                crowd[top : top + height, left : left + width] = small
            top += height + 5
    path = tmp_path / "crowd.jpg"
    cv2.imwrite(str(path), crowd)
    assert detect_mask_image.main(["-i", str(path), "--jsonl", str(tmp_path / "out.jsonl")]) == 0
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert (record["width"], record["height"]) == (3840, 640)
    assert [face["box"] for face in record["faces"]] == [list(face.box) for face in load_detector().detect(read_image(path))]
    assert len(record["faces"]) > 200


def test_many_images_are_reported_in_their_order(tmp_path, capsys):
    for number in range(40):
        shutil.copy(PEOPLE if number % 7 == 0 else ASTRONAUT, tmp_path / f"{number:02d}.jpg")
    assert detect_mask_image.main(["-i", str(tmp_path), "--jsonl", str(tmp_path / "out.jsonl")]) == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["image"] for record in records] == [str(tmp_path / f"{number:02d}.jpg") for number in range(40)]
    assert [len(record["faces"]) for record in records] == [8 if number % 7 == 0 else 1 for number in range(40)]
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        record["image"] for record in records for _ in record["faces"]
    ]


@pytest.mark.parametrize(("key", "shown"), [(ord("q"), 1), (27, 1), (ord(" "), 2)])
def test_window_shows_until_closed(monkeypatch, key, shown):
    images = []
    monkeypatch.setattr("facemask.video.display.has_display", lambda: True)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: images.append(image))
    monkeypatch.setattr(cv2, "namedWindow", lambda name, flags: None)
    monkeypatch.setattr(cv2, "resizeWindow", lambda name, width, height: None)
    monkeypatch.setattr(cv2, "waitKey", lambda delay: key)
    assert detect_mask_image.main(["-i", ASTRONAUT, PEOPLE]) == 0
    assert len(images) == shown


def test_file_name_that_is_not_utf8(capsys, tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(ASTRONAUT, tmp_path / name)
    arguments = ["-i", str(tmp_path), "--csv", str(tmp_path / "o.csv"), "--jsonl", str(tmp_path / "o.jsonl")]
    assert detect_mask_image.main(arguments) == 0
    assert json.loads((tmp_path / "o.jsonl").read_text())["image"] == str(tmp_path / name)
    assert b"caf\xe9.jpg" in (tmp_path / "o.csv").read_bytes()


def test_closed_pipe(tmp_path):
    command = [sys.executable, "detect_mask_image.py", "-i", *[PEOPLE] * 2, ASTRONAUT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in errors and "Exception" not in errors


def test_detection_never_imports_training_libraries(tmp_path):
    code = (
        "import sys, detect_mask_image\n"
        f"assert detect_mask_image.main(['-i', {ASTRONAUT!r}]) == 0\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'sklearn', 'scipy', 'matplotlib', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_imports_nothing_heavy():
    code = (
        "import sys, detect_mask_image, detect_mask_video, train_mask_detector\n"
        "print(sorted({'cv2', 'numpy', 'onnxruntime', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_resume_detects_in_new_images_only(tmp_path, capsys):
    """Nothing of an earlier run is done again; new images follow, in both files."""
    arguments = ["-i", str(tmp_path), "--jsonl", str(tmp_path / "o.jsonl"), "--csv", str(tmp_path / "o.csv")]
    shutil.copy(ASTRONAUT, tmp_path / "b.jpg")
    assert detect_mask_image.main(arguments) == 0
    shutil.copy(PEOPLE, tmp_path / "a.jpg")
    capsys.readouterr()
    assert detect_mask_image.main([*arguments, "--resume"]) == 0
    out, err = capsys.readouterr()
    assert {line.split(":")[0] for line in out.splitlines()} == {f"{tmp_path}/a.jpg"}
    assert "[INFO] 1 of 2 images were done before\n" in err and "[INFO] 1 of 1 images, 8 faces" in err
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [record["image"] for record in records] == [f"{tmp_path}/b.jpg", f"{tmp_path}/a.jpg"]
    rows = read_csv(tmp_path / "o.csv")
    assert [row["image"] for row in rows] == [f"{tmp_path}/b.jpg"] + [f"{tmp_path}/a.jpg"] * 8
    assert detect_mask_image.main([*arguments, "--resume"]) == 0
    assert "[INFO] 2 of 2 images were done before\n" in capsys.readouterr().err
    assert [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()] == records
    assert read_csv(tmp_path / "o.csv") == rows


def test_results_within_the_folder_are_skipped(tmp_path, capsys):
    shutil.copy(ASTRONAUT, tmp_path / "a.jpg")
    arguments = ["-i", str(tmp_path), "-o", str(tmp_path / "annotated")]
    for _ in range(2):
        assert detect_mask_image.main(arguments) == 0
        assert "[INFO] 1 of 1 images" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "annotated").iterdir()] == ["a.jpg"]


def test_one_line_for_an_image_that_libraries_report_too(tmp_path):
    """libpng and libjpeg write to stderr themselves, without a file's name."""
    png = bytearray(cv2.imencode(".png", cv2.imread(ASTRONAUT))[1].tobytes())
    png[200] ^= 255
    (tmp_path / "a.png").write_bytes(png)
    command = [sys.executable, str(ROOT / "detect_mask_image.py"), "-i", "a.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[INFO]")]
    assert lines == ["error: a.png: not a supported image, or corrupt; give a JPEG, PNG, WebP, BMP or TIFF file"]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param({"sub/a.jpg": ASTRONAUT}, {"a.jpg": PEOPLE}, id="a new one before it"),
        pytest.param(
            {"1/a.jpg": None, "2/a.jpg": ASTRONAUT, "3/a.jpg": PEOPLE}, {"1/a.jpg": ASTRONAUT}, id="a corrupt one fixed"
        ),
    ],
)
def test_resume_keeps_annotated_images_of_the_same_name(tmp_path, first, then):
    def run(files: dict) -> dict[str, bytes]:
        for name, source in files.items():
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tmp_path / "in" / name) if source else (tmp_path / "in" / name).write_text("broken")
        detect_mask_image.main(
            ["-i", str(tmp_path / "in"), "--jsonl", str(tmp_path / "o.jsonl"), "-o", str(tmp_path / "out"), "--resume"]
        )
        return {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    before = run(first)
    after = run(then)
    assert before.items() < after.items() and len(after) == len(before) + 1
    annotated = [json.loads(line)["annotated"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert sorted(annotated) == sorted(str(tmp_path / "out" / name) for name in after)


def test_resume_of_another_folder_into_the_same(tmp_path):
    for name, source in (("1", ASTRONAUT), ("2", PEOPLE)):
        (tmp_path / name).mkdir()
        shutil.copy(source, tmp_path / name / "x.jpg")
        outputs = ["--jsonl", str(tmp_path / "o.jsonl"), "-o", str(tmp_path / "out")]
        assert detect_mask_image.main(["-i", str(tmp_path / name), *outputs, "--resume"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x.jpg", "x_2.jpg"]


def test_sources_of_several_options(capsys):
    assert detect_mask_image.main(["-i", ASTRONAUT, "-i", PEOPLE]) == 0
    assert {line.split(":")[0] for line in capsys.readouterr().out.splitlines()} == {ASTRONAUT, PEOPLE}


@pytest.mark.parametrize(
    ("sources", "output", "files"),
    [
        pytest.param(["a.jpg"], "2024.05.01/", ["2024.05.01/a.jpg"], id="slash at the end"),
        pytest.param(["a.jpg"], "new/2024.05.01/", ["new/2024.05.01/a.jpg"], id="with parents"),
        pytest.param(["a.jpg"], "old.d", ["old.d/a.jpg"], id="existing folder"),
        pytest.param(["a.jpg", "b.jpg"], "run.v1", ["run.v1/a.jpg", "run.v1/b.jpg"], id="two images"),
        pytest.param(["a.jpg", "b.jpg"], "new/run.v1", ["new/run.v1/a.jpg", "new/run.v1/b.jpg"], id="two images, with parents"),
        pytest.param(["a.jpg"], "new/b.png", ["new/b.png"], id="a file, with parents"),
        pytest.param(["~/a.jpg"], "~/out/", ["out/a.jpg"], id="home folder in quotes"),
    ],
)
def test_output_place(tmp_path, monkeypatch, sources, output, files):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "old.d").mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(ASTRONAUT, tmp_path / name)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert detect_mask_image.main(["-i", *sources, "-o", output]) == 0
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert sorted(str(path.relative_to(tmp_path)) for path in written) == files


def test_home_folder_in_quotes_for_each_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert detect_mask_image.main(["-i", ASTRONAUT, "--jsonl", "~/o.jsonl", "--csv", "~/o.csv"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv", "o.jsonl"]


@pytest.mark.parametrize("letter", ["面", "é", "😷", "a"])
def test_long_names_are_cut_between_characters(letter):
    stem = "x" + letter * 240
    (output,) = name_outputs([Path(f"{stem}.jpg")], Place(Path("."), is_folder=True), set()).values()
    assert stem.startswith(output.stem)
    size = len(letter.encode())
    assert MAX_STEM - size < len(output.stem.encode()) <= MAX_STEM


def test_long_name_is_written(tmp_path):
    name = "面" * 80 + ".jpg"  # 244 bytes
    shutil.copy(ASTRONAUT, tmp_path / name)
    assert detect_mask_image.main(["-i", str(tmp_path / name), "-o", str(tmp_path / "out/")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["面" * 73 + ".jpg"]


@pytest.mark.parametrize(
    ("names", "written"),
    [
        pytest.param(["A.jpg", "a.jpg"], ["A.jpg", "a_2.jpg"], id="case"),
        pytest.param(["a.JPG", "a.jpg"], ["a.JPG", "a_2.jpg"], id="case of the suffix"),
        pytest.param(["a.heic", "a.jpg"], ["a.jpg", "a_2.jpg"], id="HEIC is written as JPEG"),
        pytest.param(["\u00e9.jpg", "e\u0301.jpg"], ["\u00e9.jpg", "e\u0301_2.jpg"], id="form of an accent"),
        pytest.param(["1/a.jpg", "2/a.jpg", "a_2.jpg"], ["a.jpg", "a_2.jpg", "a_2_2.jpg"], id="a number that is taken"),
    ],
)
def test_names_that_a_file_system_takes_for_one(tmp_path, names, written):
    outputs = name_outputs([Path(name) for name in names], Place(tmp_path, is_folder=True), set())
    assert [path.name for path in outputs.values()] == written


def test_output_that_is_an_input_by_another_name(tmp_path, capsys):
    """As photo.jpg is Photo.JPG where the file system ignores case; here a second link to the same file."""
    shutil.copy(ASTRONAUT, tmp_path / "Photo.JPG")
    os.link(tmp_path / "Photo.JPG", tmp_path / "photo.jpg")
    assert detect_mask_image.main(["-i", str(tmp_path / "Photo.JPG"), "-o", str(tmp_path / "photo.jpg")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {tmp_path}/photo.jpg: is an input, or another output too; choose another name for it"
    )


def test_blur_hides_faces_in_images_and_leaves_the_records(tmp_path):
    """Also the faces that are less confident than asked for."""
    arguments = ["-i", PEOPLE, "--jsonl"]
    assert detect_mask_image.main([*arguments, str(tmp_path / "a.jsonl")]) == 0
    outputs = ["-o", str(tmp_path / "a.png"), "--blur"]
    assert detect_mask_image.main([*arguments, str(tmp_path / "b.jsonl"), *outputs]) == 0
    plain, blurred = (json.loads((tmp_path / name).read_text()) for name in ("a.jsonl", "b.jsonl"))
    assert blurred == plain | {"annotated": str(tmp_path / "a.png")}
    assert detect_mask_image.main(["-i", PEOPLE, "-c", "1", *outputs]) == 0
    hidden, original = cv2.imread(str(tmp_path / "a.png")), cv2.imread(PEOPLE)
    for x1, y1, x2, y2 in FACES:
        face = hidden[y1:y2, x1:x2].reshape(-1, 3)
        assert len(np.unique(face, axis=0)) < 30 < len(np.unique(original[y1:y2, x1:x2].reshape(-1, 3), axis=0))


def test_summary_of_a_folder(tmp_path, capsys):
    for name, source in (("a.jpg", ASTRONAUT), ("people.jpg", PEOPLE)):
        shutil.copy(source, tmp_path / name)
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "bad.jpg").write_bytes(b"text")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "b.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    assert detect_mask_image.main(["-i", str(tmp_path)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[INFO]")]
    table = {line[7:15].strip(): line[16:] for line in lines if line[7:8].islower()}
    assert table["images"] == "2 with faces, 1 without, 2 failed"
    assert sum(map(int, re.findall(r"(?<=[a-z] )\d+", table["faces"]))) == 9 and "No mask " in table["faces"]
    assert table["slowest"].count(f"{tmp_path}/") == 3
    assert table["failed"] == "1 not a supported image, or corrupt, 1 the file is empty"
    assert table["not read"] == "1 JPEG XL"


def page_tiles(path: Path) -> list[tuple[str, float, str, bool]]:
    """Return label, probability, name and whether there is an image, of the tiles of a report, in their order."""
    pattern = r'<figure data-label="([^"]*)".*?data-probability="([^"]*)".*?<figcaption>.*?class="source">([^<]*)<'
    figures = re.findall(r"<figure.*?</figure>", path.read_text(encoding="utf-8"), re.DOTALL)
    tiles = [(re.match(pattern, figure, re.DOTALL).groups(), "data:image/jpeg" in figure) for figure in figures]
    return [(label, float(probability), name, image) for (label, probability, name), image in tiles]


def test_report_of_a_folder(tmp_path):
    """All faces, the least certain first, then the images without faces; and what failed or was not read."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, source in (("a.jpg", ASTRONAUT), ("people.jpg", PEOPLE)):
        shutil.copy(source, folder / name)
    cv2.imwrite(str(folder / "black.png"), np.zeros((64, 64, 3), np.uint8))
    (folder / "bad.jpg").write_bytes(b"text")
    (folder / "b.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    outputs = ["--report", str(tmp_path / "new/r.html"), "--jsonl", str(tmp_path / "o.jsonl")]
    assert detect_mask_image.main(["-i", str(folder), *outputs]) == 1
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    faces = [(face["probability"], face["label"], Path(record["image"]).name) for record in records for face in record["faces"]]
    tiles = page_tiles(tmp_path / "new/r.html")
    assert sorted((round(probability, 4), label, name) for label, probability, name, _ in tiles[:-1]) == sorted(faces)
    assert [tile[1] for tile in tiles] == sorted(tile[1] for tile in tiles)
    assert tiles[-1][0] == "no face" and tiles[-1][2] == "black.png" and all(image for *_, image in tiles)
    page = (tmp_path / "new/r.html").read_text(encoding="utf-8")
    assert f"{folder}/bad.jpg: not a supported image, or corrupt" in page and "Not read: 1 JPEG XL." in page
    assert 'href="../in/people.jpg"' in page


def test_report_of_a_resumed_run_has_the_earlier_faces(tmp_path):
    shutil.copy(ASTRONAUT, tmp_path / "a.jpg")
    arguments = ["-i", str(tmp_path), "--jsonl", str(tmp_path / "o.jsonl"), "--report", str(tmp_path / "r.html"), "--resume"]
    assert detect_mask_image.main(arguments) == 0
    shutil.copy(PEOPLE, tmp_path / "b.jpg")
    assert detect_mask_image.main(arguments) == 0
    tiles = page_tiles(tmp_path / "r.html")
    assert sorted((name, image) for *_, name, image in tiles) == [("a.jpg", False)] + [("b.jpg", True)] * 8
    assert "1 images were done in an earlier run" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_report_hides_faces(tmp_path):
    def images(*more: str) -> list[np.ndarray]:
        assert detect_mask_image.main(["-i", ASTRONAUT, "--report", str(tmp_path / "r.html"), *more]) == 0
        data = re.findall('data:image/jpeg;base64,([^"]*)', (tmp_path / "r.html").read_text(encoding="utf-8"))
        return [cv2.imdecode(np.frombuffer(base64.b64decode(uri), np.uint8), 1) for uri in data]

    (plain,), (hidden,) = images(), images("--blur")
    sharpness = [cv2.Laplacian(image[50:100, 50:100], cv2.CV_64F).var() for image in (plain, hidden)]
    assert sharpness[1] < sharpness[0] / 2
    assert "href" not in (tmp_path / "r.html").read_text(encoding="utf-8")  # the original shows the face


def test_thousands_of_equal_names():
    paths = [Path(f"{number}/IMG.jpg") for number in range(20_000)]
    outputs = name_outputs(paths, Place(Path("."), is_folder=True), {os.path.abspath("IMG_3.jpg")})
    assert len(set(outputs.values())) == 20_000
    assert [str(outputs[path]) for path in paths[:4]] == ["IMG.jpg", "IMG_2.jpg", "IMG_4.jpg", "IMG_5.jpg"]


def test_one_image_of_many_that_cannot_be_written(tmp_path, capsys):
    """WebP holds 16,383 px a side, file systems names of 255 bytes: the faces count, and the rest continues."""
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((10, 17_000, 3), np.uint8))
    (tmp_path / "a.png").rename(tmp_path / "in/a.webp")
    for name in ("b" * 250, "b" * 251):
        shutil.copy(ASTRONAUT, tmp_path / "in" / f"{name}.jpg")
    shutil.copy(ASTRONAUT, tmp_path / "in/c.jpg")
    arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--jsonl", str(tmp_path / "o.jsonl")]
    assert detect_mask_image.main(arguments) == 1
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[WARN]")]
    assert warnings == [f"[WARN] {tmp_path}/out/a.webp: cannot be written in this format; use .jpg or .png"]
    written = [f"{'b' * 220}.jpg", f"{'b' * 220}_2.jpg", "c.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(written)
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [record.get("annotated") for record in records] == [None, *(f"{tmp_path}/out/{name}" for name in written)]


FACE = '{"box": [1, 2, 3, 4], "confidence": 0.5, "label": "a", "probability": 0.5}'


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"image": 3, "faces": []}',
        '{"image": "a"}',
        '{"image": "a", "faces": 3}',
        '{"image": "a", "faces": [], "annotated": []}',
        '{"image": "a", "faces": [{}]}',
        '{"image": "a", "faces": [1]}',
        '{"image": "\\ud800", "faces": []}',
        f'{{"image": "a", "faces": [{FACE.replace("[1, 2, 3, 4]", "5")}]}}',
        '{"image": "a", "faces": [%s]}'.replace("%s", FACE.replace('"a"', '"\\ud800"')),
        f'{{"image": "a", "faces": [{FACE.replace("0.5", chr(34) + "x" + chr(34))}]}}',
        f'{{"image": "a", "faces": [{FACE.replace(chr(34) + "a" + chr(34), "3")}]}}',
    ],
)
def test_resume_of_another_programs_lines(tmp_path, capsys, line):
    (tmp_path / "o.jsonl").write_text(f'{{"image": "b", "faces": [{FACE}]}}\n{line}\n')
    assert (
        detect_mask_image.main(
            ["-i", ASTRONAUT, "--jsonl", str(tmp_path / "o.jsonl"), "--csv", str(tmp_path / "o.csv"), "--resume"]
        )
        == 1
    )
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/o.jsonl: has lines that this script did not write; omit --resume, or name another file\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["o.jsonl"]


def test_resume_into_one_file_that_shows_another_image(tmp_path, capsys):
    outputs = ["-o", str(tmp_path / "out.jpg"), "--jsonl", str(tmp_path / "o.jsonl")]
    assert detect_mask_image.main(["-i", ASTRONAUT, *outputs]) == 0
    before = (tmp_path / "out.jpg").read_bytes()
    assert detect_mask_image.main(["-i", ASTRONAUT, PEOPLE, *outputs, "--resume"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {tmp_path}/out.jpg: shows another image already; give -o a folder"
    assert (tmp_path / "out.jpg").read_bytes() == before


def test_resume_into_the_same_folder_by_another_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, source in (("2", PEOPLE), ("1", ASTRONAUT)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(source, tmp_path / "in" / folder / "a.jpg")
        output = "out" if folder == "2" else str(tmp_path / "in/../out")
        assert detect_mask_image.main(["-i", "in", "-o", output, "--jsonl", "o.jsonl", "--resume"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "a_2.jpg"]
