import subprocess
import sys
from contextlib import nullcontext, suppress
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from facemask.errors import InputError
from facemask.io.json_lines import JsonLines, json_lines, resumable_json_lines
from facemask.io.outputs import atomic_path, check_outputs, check_writable, partial_path, text_output
from facemask.video.writer import VideoSink
from tests.helpers import ROOT


def test_atomic_path_when_done(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_path_after_error_keeps_the_old(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_text_output(tmp_path):
    with text_output(tmp_path / "a.txt") as file:
        file.write("caf\udce9\n")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9\n"


def test_text_output_after_error_keeps_the_old(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), text_output(tmp_path / "a.txt") as file:
        print("first", file=file)
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("", "is a folder; give a file name", id="folder"),
        pytest.param("file/a.txt", "file is not a folder; choose another place", id="file as folder"),
        pytest.param("file/none/a.txt", "file is not a folder; choose another place", id="file as folder's folder"),
    ],
)
def test_check_writable_refuses(tmp_path, name, message):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        check_writable(tmp_path / name)


@pytest.mark.parametrize("names", [["in.jpg"], ["sub/../in.jpg"], ["a.json", "a.json"]])
def test_check_outputs_refuses(tmp_path, names):
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match="is an input, or another output too; choose another name for it"):
        check_outputs([tmp_path / name for name in names], [tmp_path / "in.jpg"])


@pytest.mark.parametrize("name", ["a.txt", "none/none/a.txt"])
def test_checks_make_nothing(tmp_path, name):
    check_writable(tmp_path / name)
    check_outputs([tmp_path / name], [])
    assert list(tmp_path.iterdir()) == []


def write_text(path):
    with text_output(path) as file:
        file.write("x")


def write_lines(path):
    with json_lines(path) as lines:
        lines.write({})


def append_line(path):
    with JsonLines(path) as lines:
        lines.write({})


def write_frame(path):
    with VideoSink(path.with_suffix(".mp4"), Fraction(25)) as sink:
        sink.write(np.zeros((16, 16, 3), np.uint8), 0.0)


def test_lines_in_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make this folder"):
        append_line(tmp_path / "file" / "a.jsonl")


@pytest.mark.parametrize("write", [write_text, write_lines, append_line, write_frame])
def test_missing_folders_are_made(tmp_path, write):
    write(tmp_path / "none" / "none" / "a.txt")
    assert [path.stem for path in (tmp_path / "none" / "none").iterdir()] == ["a"]


def test_json_lines_are_whole_as_they_come(tmp_path):
    with json_lines(tmp_path / "a.jsonl") as lines:
        lines.write({"a": [1, "ü"]})
        assert (tmp_path / "a.partial.jsonl").read_bytes() == b'{"a": [1, "\\u00fc"]}\n'
        lines.write({})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.jsonl", '{"a": [1, "\\u00fc"]}\n{}\n')]


@pytest.mark.parametrize("error", [None, RuntimeError])
@pytest.mark.parametrize("count", [0, 2])
def test_json_lines_at_the_end(tmp_path, count, error):
    """Lines take their name; a run without lines leaves nothing, and the earlier file stays."""
    (tmp_path / "a.jsonl").write_text("old\n")
    with suppress(RuntimeError), json_lines(tmp_path / "a.jsonl") as lines:
        for _ in range(count):
            lines.write({})
        if error:
            raise error
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.jsonl", "{}\n" * count or "old\n")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(None, "{}\n", id="new"),
        pytest.param("old\n", "old\n{}\n", id="old"),
        pytest.param("old\nhal", "old\nhal\n{}\n", id="cut within a line"),
        pytest.param("", "{}\n", id="empty"),
    ],
)
def test_json_lines_appended(tmp_path, before, after):
    path = tmp_path / "a.jsonl"
    if before is not None:
        path.write_text(before)
    with JsonLines(path) as lines:
        lines.write({})
        assert path.read_text() == after
    assert path.read_text() == after


def test_json_lines_on_a_full_disk_stay_whole(tmp_path):
    with pytest.raises(InputError) as error, json_lines(tmp_path / "a.jsonl") as lines:
        lines.write({"a": 1})
        file = lines._file

        class Full:
            """A disk that takes five more bytes."""

            def write(self, data: bytes) -> int:
                if len(data) < 9:
                    raise OSError(28, "No space left on device")
                return file.write(data[:5])

            truncate, close, fileno = file.truncate, file.close, file.fileno

        lines._file = Full()
        lines.write({"a": 22})
    assert str(error.value) == (
        f"{tmp_path}/a.jsonl: cannot be written (No space left on device); free some space, or choose another place"
    )
    assert (tmp_path / "a.jsonl").read_text() == '{"a": 1}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' full device")
def test_json_lines_on_the_full_device():
    with pytest.raises(InputError, match="No space left on device"), JsonLines("/dev/full", "a.jsonl") as lines:
        lines.write({})
    assert lines.count == 0


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jpg"])
def test_link_in_the_place_of_a_partial_file(tmp_path, name):
    """Nothing is written through a link with the name of a partial file."""
    (tmp_path / "precious").write_text("precious")
    partial = partial_path(tmp_path / name)
    partial.symlink_to("precious")
    with pytest.raises(InputError) as error, atomic_path(tmp_path / name) as temporary:
        temporary.write_text("other")
    assert str(error.value) == f"{partial}: not a regular file, and in the way; remove it"
    assert (tmp_path / "precious").read_text() == "precious"


def test_resumable_json_lines_copied_in_part(tmp_path, monkeypatch):
    """If the disk gets full while the whole file is copied, no part of the copy stays."""

    def copy_a_part(source, target):
        target.write(b"{}\n")
        raise OSError(28, "No space left on device")

    (tmp_path / "a.jsonl").write_text("{}\n{}\n")
    monkeypatch.setattr("shutil.copyfileobj", copy_a_part)
    with pytest.raises(OSError), resumable_json_lines(tmp_path / "a.jsonl", resume=True):
        pass
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.jsonl", "{}\n{}\n")]


def test_json_lines_keep_those_of_a_killed_process(tmp_path):
    (tmp_path / "a.partial.jsonl").write_text("old\n")
    with json_lines(tmp_path / "a.jsonl") as lines:
        lines.write({})
    assert sorted((path.name, path.read_text()) for path in tmp_path.iterdir()) == [
        ("a.jsonl", "{}\n"),
        ("a.partial-1.jsonl", "old\n"),
    ]


@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
def test_check_outputs_that_differ_in_case(tmp_path, monkeypatch, platform):
    """The platform is faked; the file system here tells the names apart."""
    monkeypatch.setattr("facemask.io.outputs.sys", SimpleNamespace(platform=platform))
    names = [tmp_path / "Faces.csv", tmp_path / "faces.csv"]
    refused = (
        nullcontext() if platform == "linux" else pytest.raises(InputError, match=r"faces.csv: is an input, or another output")
    )
    with refused:
        check_outputs(names, [])
    with refused:
        check_outputs(names[1:], names[:1])


def test_check_outputs_over_the_partial_file_of_an_input(tmp_path):
    (tmp_path / "out.partial.mp4").write_bytes(b"x")
    with pytest.raises(InputError) as error:
        check_outputs([tmp_path / "out.mp4"], [tmp_path / "out.partial.mp4"])
    assert str(error.value) == f"{tmp_path}/out.mp4: is an input, or another output too; choose another name for it"


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a null device")
def test_check_writable_refuses_a_device():
    with pytest.raises(InputError) as error:
        check_writable("/dev/null")
    assert str(error.value) == "/dev/null: not a regular file; choose another name"


def test_resumable_json_lines_interrupted_and_resumed(tmp_path, caplog):
    path, partial = tmp_path / "a.jsonl", tmp_path / "a.partial.jsonl"
    with pytest.raises(KeyboardInterrupt), resumable_json_lines(path, resume=False) as lines:
        lines.write({"a": 1})
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["a.partial.jsonl"]
    assert caplog.messages == [f"not finished: the results so far are in {partial}; the same command with --resume continues"]
    with open(partial, "a") as file:
        file.write('{"a": 2')  # a process was killed here
    with resumable_json_lines(path, resume=True) as lines:
        assert list(lines.records()) == [{"a": 1}]
        lines.write({"a": 3})
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.jsonl", '{"a": 1}\n{"a": 3}\n')]


def test_resumable_json_lines_add_to_a_whole_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n')
    with resumable_json_lines(path, resume=True) as lines:
        assert list(lines.records()) == [{"a": 1}]
        lines.write({"a": 2})
        assert path.read_text() == '{"a": 1}\n'  # until the end
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.jsonl", '{"a": 1}\n{"a": 2}\n')]


def test_resumable_json_lines_without_earlier_ones(tmp_path):
    with resumable_json_lines(tmp_path / "a.jsonl", resume=True) as lines:
        assert list(lines.records()) == []
    assert (tmp_path / "a.jsonl").read_text() == ""


def test_resumable_json_lines_not_resumed_keep_those_of_a_killed_process(tmp_path):
    (tmp_path / "a.partial.jsonl").write_text("{}\n")
    with resumable_json_lines(tmp_path / "a.jsonl", resume=False):
        pass
    assert sorted((path.name, path.read_text()) for path in tmp_path.iterdir()) == [
        ("a.jsonl", ""),
        ("a.partial-1.jsonl", "{}\n"),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.partial.jsonl"])
@pytest.mark.parametrize("line", ["", "text", "[1]", "3", "[" * 100_000])
def test_records_of_a_corrupt_line(tmp_path, name, line):
    (tmp_path / name).write_text(f"{{}}\n{line}\n{{}}\n")
    with pytest.raises(InputError) as error, resumable_json_lines(tmp_path / "a.jsonl", resume=True) as lines:
        list(lines.records())
    assert str(error.value) == f"{tmp_path}/{name}: line 2 is corrupt; remove it, or omit --resume"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("lines_of_the_other", [0, 1])
def test_another_run_is_writing(tmp_path, resume, lines_of_the_other):
    with resumable_json_lines(tmp_path / "a.jsonl", resume=False) as other:
        for _ in range(lines_of_the_other):
            other.write({})
        busy = pytest.raises(InputError, match="another run is writing it; wait for its end, or name another file")
        with busy, resumable_json_lines(tmp_path / "a.jsonl", resume):
            pass
        other.write({})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.jsonl", "{}\n" * (lines_of_the_other + 1))]


def test_link_in_the_place_of_the_copy(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "a.partial.jsonl.copy").symlink_to("precious")
    with resumable_json_lines(tmp_path / "a.jsonl", resume=True) as lines:
        lines.write({})
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "a.jsonl").read_text() == "{}\n{}\n" and not (tmp_path / "a.jsonl").is_symlink()


def test_lock_file_goes_with_the_lines(tmp_path):
    with JsonLines(tmp_path / "a.jsonl") as lines:
        assert (tmp_path / "a.jsonl.lock").is_file()
        lines.write({})
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_lock_file_of_a_killed_process_locks_nothing(tmp_path):
    (tmp_path / "a.partial.jsonl.lock").touch()
    with json_lines(tmp_path / "a.jsonl") as lines:
        lines.write({})
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_lock_ends_when_the_file_cannot_be_opened(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(IsADirectoryError):
        JsonLines(tmp_path / "a.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_outputs_start_without_opencv():
    """The modules that check outputs answer before the heavy imports."""
    code = "import sys, facemask.io.json_lines, facemask.io.find_images\nprint({'cv2', 'numpy', 'PIL', 'filelock'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_output_whose_name_became_a_folder_is_kept(tmp_path):
    with pytest.raises(InputError) as caught, atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        (tmp_path / "a.txt").mkdir()
    assert (
        str(caught.value) == f"{tmp_path / 'a.txt'}: cannot be replaced (Is a directory); move it away; it is in {temporary.name}"
    )
    assert temporary.read_text() == "new"
