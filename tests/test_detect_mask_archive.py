"""detect_mask_archive.py: the same results as the image script's, resumption, sources, errors as rows.

Most tests process units in this process, as an actor does; those that start Ray are marked slow too.
"""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [archive]: pip install -r requirements-archive.txt")
pytest.importorskip("ray", reason="needs the extra [archive]: pip install -r requirements-archive.txt")

import pyarrow as pa
from pyarrow import parquet as pq

import detect_mask_archive
import detect_mask_image
from facemask.archive import images as image_work
from facemask.archive import job, parts, sources, tables, worker
from facemask.archive.images import ImageWorker
from facemask.archive.job import unit_size
from facemask.archive.runs import begin
from facemask.cli import options
from facemask.errors import InputError, OutputError
from facemask.io.images import write_image
from tests.archive.runs import find, make_output, process, records
from tests.helpers import EXAMPLES, ROOT

pytestmark = pytest.mark.archive


@pytest.fixture(scope="module")
def detector():
    args = detect_mask_archive.build_parser().parse_args(["-i", "x", "-o", "y"])
    return options.load_detector(args, 1)


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder with photos of people, one without, and two that cannot be used."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        shutil.copy(EXAMPLES / "people.jpg", folder / f"{number}.jpg")
    write_image(folder / "grey.png", np.full((80, 90, 3), 127, np.uint8))
    (folder / "corrupt.jpg").write_bytes(b"no image")
    (folder / "empty.jpg").write_bytes(b"")
    return folder


@pytest.fixture
def image_script(images, tmp_path) -> list[str]:
    """The lines that the image script writes for the folder."""
    lines = tmp_path / "lines.jsonl"
    assert detect_mask_image.main(["-i", str(images), "--jsonl", str(lines), "--no-show"]) == 1
    return sorted(lines.read_text().splitlines())


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_results_are_the_image_scripts_byte_for_byte(detector, images, image_script, tmp_path, kind):
    output = make_output(tmp_path, kind=kind)
    counts = process(detector, output, find(images))
    found = records(output)
    assert sorted(json.dumps(record) for record in found if "error" not in record) == image_script
    errors = {Path(record["image"]).name: record["error"] for record in found if "error" in record}
    assert errors == {
        "corrupt.jpg": f"{images}/corrupt.jpg: not a supported image, or corrupt; give a JPEG, PNG, WebP, BMP or TIFF file",
        "empty.jpg": f"{images}/empty.jpg: the file is empty; copy it again",
    }
    assert counts.totals["images"] == 6 and counts.totals["faces"] == 24
    assert counts.errors == {"not a supported image, or corrupt": 1, "the file is empty": 1}


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_resumed_run_equals_an_undisturbed_one(detector, images, tmp_path, done):
    whole, stopped = make_output(tmp_path), make_output(tmp_path, "stopped")
    counts = process(detector, whole, find(images))
    process(detector, stopped, find(images), units=done)
    assert len(records(stopped)) == 2 * done
    again = process(detector, stopped, find(images), size=4, resume=True)
    assert records(stopped) == records(whole) and again == counts


def test_new_images_are_added(detector, images, tmp_path):
    output = make_output(tmp_path)
    process(detector, output, find(images))
    write_image(images / "00.png", np.zeros((70, 70, 3), np.uint8))
    process(detector, output, find(images), resume=True)
    names = [Path(record["image"]).name for record in records(output)]
    assert names == ["0.jpg", "00.png", "1.jpg", "2.jpg", "corrupt.jpg", "empty.jpg", "grey.png"]


def test_unit_done_twice_is_written_once(detector, images, tmp_path, monkeypatch):
    output = make_output(tmp_path)
    process(detector, output, find(images), size=6)
    monkeypatch.setattr(ImageWorker, "_detect", None)  # it is not called
    actor = ImageWorker(worker.Settings(lambda: detector, output, "run False", 0.5, 1))
    (unit,) = sources.cut_units(find(images), 6, (), ())
    assert actor.process(unit).counts.totals["images"] == 6 and len(records(output)) == 6


def test_actor_that_is_left_over_does_not_write(detector, images, tmp_path):
    output = make_output(tmp_path)
    process(detector, output, find(images), units=0)
    actor = ImageWorker(worker.Settings(lambda: detector, output, "earlier", 0.5, 1))
    with pytest.raises(InputError, match="another run has begun to write it"):
        actor.process(sources.cut_units(find(images), 2, (), ())[0])
    assert records(output) == []


def test_image_at_which_processes_end_becomes_an_error(detector, images, tmp_path, monkeypatch):
    output = make_output(tmp_path)
    process(detector, output, find(images), units=0)
    actor = ImageWorker(worker.Settings(lambda: detector, output, "run False", 0.5, 250_000_000))
    detect = actor._detect

    def die(item):
        if item.name.endswith("1.jpg") and item.error is None:
            raise Died
        return detect(item)

    monkeypatch.setattr(actor, "_detect", die)
    (unit,) = sources.cut_units(find(images), 6, (), ())
    for _ in range(worker.CAREFUL + worker.DEADLY - 1):
        with pytest.raises(Died):
            actor.process(unit)
    actor.process(unit)
    errors = [Path(record["image"]).name for record in records(output) if "ended the process" in record.get("error", "")]
    assert errors == ["1.jpg"] and len(records(output)) == 6
    assert list((tmp_path / "out" / "attempts").iterdir()) == []


def test_errors_that_a_process_survives_blame_no_image(detector, images, tmp_path, monkeypatch):
    output = make_output(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(parts.Output, "write_part", raise_output_error)
        for resume in (False, *[True] * worker.CAREFUL, True):
            with pytest.raises(OutputError):
                process(detector, output, find(images), size=6, resume=resume)
    counts = process(detector, output, find(images), size=6, resume=True)
    assert counts.errors == {"not a supported image, or corrupt": 1, "the file is empty": 1}


def raise_output_error(*_):
    raise OutputError("faces: cannot be written (No space left on device); free some space")


class Died(BaseException):
    """In place of the end of a process."""


def test_runs_that_are_killed_blame_no_image(tmp_path):
    output = make_output(tmp_path)
    for number in range(worker.CAREFUL + worker.DEADLY):
        for _ in range(worker.CAREFUL):
            with suppress(Died), worker.Attempts.begin(output, "a", f"run {number}") as notes:
                (item,) = notes.watch(iter([sources.Item("a.jpg", "a.jpg")]), 0)
                assert item.error is None
                raise Died


def test_process_that_ends_while_a_part_is_written_blames_no_image(detector, images, tmp_path, monkeypatch):
    output = make_output(tmp_path)
    process(detector, output, find(images), units=0)
    actor = ImageWorker(worker.Settings(lambda: detector, output, "run False", 0.5, 250_000_000))
    (unit,) = sources.cut_units(find(images / "grey.png"), 1, (), ())

    def die(*_):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(parts.Output, "write_part", die)
        for _ in range(worker.CAREFUL + worker.DEADLY):
            with pytest.raises(Died):
                actor.process(unit)
    assert actor.process(unit).counts.totals["failed"] == 0


def make_tar(path: Path, images: Path, mode="w") -> Path:
    with tarfile.open(path, mode) as tar:
        for image in sorted(images.iterdir()):
            tar.add(image, image.name)
        for name in ("0.json", "._0.jpg"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz")])
def test_tar_shard(detector, images, image_script, tmp_path, monkeypatch, suffix, mode):
    monkeypatch.setattr(image_work, "ROWS", 2)  # several parts
    shard = make_tar(tmp_path / f"a.{suffix}", images, mode)
    output = make_output(tmp_path)
    process(detector, output, find(shard))
    found = records(output)
    assert [record["image"] for record in found] == [f"{shard}/{path.name}" for path in sorted(images.iterdir())]
    lines = [json.dumps(record).replace(f"{shard}/", f"{images}/") for record in found if "error" not in record]
    assert sorted(lines) == image_script
    again = process(detector, output, find(shard), resume=True)
    assert records(output) == found and again.totals["images"] == 6


def test_truncated_tar_is_a_row_with_its_error(detector, images, tmp_path):
    shard = make_tar(tmp_path / "a.tar", images)
    shard.write_bytes(shard.read_bytes()[:100_000])
    output = make_output(tmp_path)
    process(detector, output, find(shard))
    assert any(record["image"] == str(shard) and "not a whole tar file" in record["error"] for record in records(output))


@pytest.mark.parametrize("chosen", [{"limit": 2, "sample": None}, {"limit": None, "sample": 2}])
@pytest.mark.parametrize("source", ["folder", "tar", "parquet"])
def test_first_images_are_not_done_again(detector, images, tmp_path, source, chosen):
    places = {
        "folder": images,
        "tar": make_tar(tmp_path / "a.tar", images),
        "parquet": make_parquet(tmp_path / "a.parquet", images),
    }
    output, found = make_output(tmp_path), find(places[source])
    process(detector, output, sources.choose(found, **chosen))
    first = [record["image"] for record in records(output)]
    assert len(first) == 2
    process(detector, output, found, resume=True)
    names = [record["image"] for record in records(output)]
    assert len(names) == len(set(names)) == 6 and set(first) < set(names)


def make_parquet(path: Path, images: Path, kind="struct") -> Path:
    files = sorted(images.iterdir())
    values = {
        "struct": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "bytes": [file.read_bytes() for file in files],
        "path": [str(file) for file in files],
    }
    pq.write_table(pa.table({"label": list(range(len(files))), "image": values[kind]}), path, row_group_size=4)
    return path


@pytest.mark.parametrize("kind", ["struct", "bytes", "path"])
def test_parquet_with_images_or_paths(detector, images, image_script, tmp_path, kind):
    file = make_parquet(tmp_path / "a.parquet", images, kind)
    output = make_output(tmp_path)
    process(detector, output, find(file))
    found = records(output)
    assert len(found) == 6
    names = {
        str(path) if kind == "path" else f"{file}#{number}": str(path) for number, path in enumerate(sorted(images.iterdir()))
    }
    lines = [json.dumps(record | {"image": names[record["image"]]}) for record in found if "error" not in record]
    assert sorted(lines) == image_script


def add_member(tar: tarfile.TarFile, name: str, data=b"", **values) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in values.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def test_equal_names_and_links_in_a_tar_file(detector, tmp_path):
    shard = tmp_path / "a.tar"
    photo = (EXAMPLES / "people.jpg").read_bytes()
    with tarfile.open(shard, "w") as tar:
        for _ in range(2):
            add_member(tar, "0.jpg", photo)
        add_member(tar, "hard.jpg", type=tarfile.LNKTYPE, linkname="0.jpg")
        add_member(tar, "soft.jpg", type=tarfile.SYMTYPE, linkname="0.jpg")
    (found,) = find(shard).shards
    items = list(found.read())
    names = [f"{shard}/{name}" for name in ("0.jpg", "0.jpg#2", "hard.jpg", "soft.jpg")]
    assert [item.name for item in items] == found.names() == names
    why = "is a link in the tar file; pack it with --hard-dereference or -h"
    assert [item.error for item in items] == [None, None, f"{names[2]}: {why}", f"{names[3]}: {why}"]
    assert [item.name for item in found.only(names[1:3]).read()] == names[1:3]
    output = make_output(tmp_path)
    process(detector, output, sources.choose(find(shard), 1, None))
    process(detector, output, find(shard), resume=True)
    assert [record["image"] for record in records(output)] == names
    process(detector, output, find(shard), resume=True)  # no name has two rows


def test_rows_after_a_broken_page_are_errors_each(tmp_path):
    file = tmp_path / "a.parquet"
    rng = np.random.default_rng(0)
    values = [rng.bytes(5000) for _ in range(40)]
    pq.write_table(pa.table({"image": values}), file, data_page_size=1000, compression="none", use_dictionary=False)
    data = bytearray(file.read_bytes())
    at = data.index(values[24]) - 60  # the header of a page
    data[at : at + 60] = bytes(60)
    file.write_bytes(data)
    (group,) = find(file).shards
    items = list(group.read())
    assert [item.name for item in items] == group.names()
    good = [item.name for item in items if item.error is None]
    assert 0 < len(good) <= 24 and "not a whole Parquet file" in items[24].error
    rest = group.only([f"{file}#{number}" for number in (0, 30, 39)]).without([f"{file}#0", f"{file}#30"])
    assert [item.name for item in rest.read()] == [f"{file}#39"]


@pytest.mark.parametrize("modified", [1.7e12, -1e18, float("nan"), float("inf")])
def test_time_that_is_not_one(modified):
    assert sources.Item("a.jpg", modified=modified).time is None


def test_options_of_uris_are_not_in_names_and_keys(monkeypatch):
    uris = [f"s3://photos/%s?region={region}" for region in ("a", "b")]
    for name in ("0.jpg", "a.tar", "a.mp4"):
        both = [uri % name for uri in uris]
        monkeypatch.setattr(sources, "_find_remote", lambda source, skipped: [source])
        found = sources.find_sources(both, Counter())
        assert [*found.images, *(shard.uri for shard in found.shards)] == both[:1]
        if found.shards:
            first, second = (find(uri).shards[0] for uri in both)
            assert first.key == second.key
    assert sources.ParquetRows(uris[0] % "a", 1, 0, "b", 2).key == sources.ParquetRows(uris[1] % "a", 1, 0, "b", 2).key


def test_clip_that_is_done_is_skipped():
    found = sources.Found(shards=[sources.Clip("a.mp4"), sources.Clip("b.mp4")])
    assert sources.cut_units(found, 1, {"a.mp4"}, ()) == [sources.Clip("b.mp4")]


@pytest.mark.parametrize("name", ["\u0130.tar", "A.TGZ", "a.Tar.gz", b"a\xff.tar".decode("utf-8", "surrogateescape")])
def test_images_of_shards_whose_names_are_unusual(name):
    found = sources.Found(shards=[sources.TarShard(name)])
    done = sources.stored_name(f"{name}/0.jpg")
    (unit,) = sources.cut_units(found, 1, {done}, ())
    assert unit.done == {done}


def test_list_of_shards(images, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tar, file = make_tar(tmp_path / "a.tar", images), make_parquet(tmp_path / "a.parquet", images)
    paths = make_parquet(tmp_path / "paths.parquet", images, "path")
    lists = tmp_path / "list.txt"
    lists.write_text(f"{tar}\n{file}\n~/in/0.jpg\n{lists}\n{paths}\n")
    found = find(lists)
    assert [shard.uri for shard in found.shards] == [str(tar), str(file), str(file)]
    assert found.images == [f"{images}/0.jpg", str(lists), str(paths)]


def test_column_of_another_type(images, tmp_path):
    file = tmp_path / "a.parquet"
    names = pa.array(["a.jpg", "b.jpg"]).dictionary_encode()
    pq.write_table(pa.table({"number": [1, 2], "path": names, "lists": [["a"], ["b"]]}), file)
    assert find(file).images == find(file, column="path").images == ["a.jpg", "b.jpg"]
    for column, kind in (("number", "int64"), ("lists", "list<")):
        with pytest.raises(InputError) as error:
            find(file, column=column)
        assert str(error.value).startswith(f"{file}: column {column} is {kind}")
        assert str(error.value).endswith("; name one of images or paths with --column")


def test_list_of_paths(images, tmp_path):
    (tmp_path / "list.txt").write_text(f"# photos\n{images}/1.jpg\n\n{images}/0.jpg\n")
    assert find(tmp_path / "list.txt").images == [f"{images}/1.jpg", f"{images}/0.jpg"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/a.jpg", "web addresses are not read here"),
        ("nothing://bucket/a.jpg", "nothing://bucket: cannot be opened"),
        ("{tmp}/*.jpg", "no file matches"),
        ("{tmp}/none.txt", "cannot be read"),
        ("{tmp}/bad.parquet", "not a whole Parquet file"),
        ("{tmp}/numbers.parquet", "no column of images (it has number); name one with --column"),
    ],
)
def test_sources_that_name_nothing(tmp_path, source, message):
    (tmp_path / "bad.parquet").write_bytes(b"no Parquet")
    pq.write_table(pa.table({"number": [1]}), tmp_path / "numbers.parquet")
    with pytest.raises(InputError) as error:
        find(source.format(tmp=tmp_path))
    assert message in str(error.value)


def test_output_with_results_needs_resume_and_the_same_options(detector, images, tmp_path):
    output = make_output(tmp_path)
    process(detector, output, find(images), units=1)
    with pytest.raises(InputError, match="holds results of another run; add --resume"):
        process(detector, output, find(images))
    with pytest.raises(InputError, match=r"other options \(confidence\)"), begin(output, "b", {"confidence": 0.6}, True):
        pass


def test_run_that_ends_before_its_cluster_is_up_leaves_the_output(images, tmp_path, capsys):
    output = make_output(tmp_path)
    arguments = ["-i", str(images), "-o", output.uri, "--address", "127.0.0.1:1"]
    for resume in ([], ["--resume"]):
        output.write_json("summary.json", {})
        assert detect_mask_archive.main([*arguments, *resume]) == 1
        assert "127.0.0.1:1: cannot be reached" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.json"]


def test_output_without_parts_needs_no_resume(tmp_path):
    output = make_output(tmp_path)
    for confidence in (0.5, 0.6):
        with begin(output, "a", {"confidence": confidence}, False):
            pass
    assert output.read_json("run.json")["options"] == {"confidence": 0.6}


class FolderActor(worker.UnitActor):
    def __init__(self, settings):
        self.settings = settings

    def process(self, unit):
        return self.settings, next(unit.read()).modified, str(Path.cwd())


def test_actors_are_in_the_folder_of_the_command(images, tmp_path, monkeypatch):
    monkeypatch.chdir(images)
    units = sources.cut_units(sources.find_sources(["0.jpg"], Counter()), 1, (), ())
    monkeypatch.chdir(tmp_path)  # in which `ray start` ran
    actor = job.InFolder(str(images), FolderActor, "settings")
    ((result,),) = actor({"unit": [pickle.dumps(unit) for unit in units]}).values()
    assert pickle.loads(result) == ("settings", (images / "0.jpg").stat().st_mtime, str(images))
    job.InFolder(str(tmp_path / "none"), FolderActor, "settings")  # no error: URIs need no folder


def test_partial_file_of_an_earlier_process_with_the_same_id(tmp_path):
    store, path = make_output(tmp_path).path("run.json")
    (tmp_path / "out").mkdir()
    Path(f"{path}.{os.getpid()}.partial").write_bytes(b"")
    store.write(path, b"{}")
    assert store.read(path) == b"{}"


def test_parts_have_the_documented_schema(detector, images, tmp_path):
    output = make_output(tmp_path)
    process(detector, output, find(images))
    table = pq.read_table(tmp_path / "out" / "faces")
    schema = tables.FACES.schema
    assert pa.schema(table.schema.field(name) for name in schema.names) == schema
    assert table.schema.metadata[b"facemask.schema"] == b"1"
    assert sorted(find(tmp_path / "out" / "faces").images) == sorted(find(images).images)  # another run's input
    page = (ROOT / "docs" / "archives.md").read_text()
    fields = [
        *tables.FACE,
        *(field for each in (tables.FACES, tables.CLIPS, tables.TRACKS, tables.EVENTS) for field in each.schema),
    ]
    assert all(f"| `{field.name}` |" in page for field in fields)


@pytest.mark.parametrize(("images", "actors", "size"), [(0, 2, 1), (16, 2, 1), (100, 2, 7), (10**6, 2, 1024)])
def test_unit_size(images, actors, size):
    assert unit_size(images, actors) == size


def test_queries_of_the_page(detector, images, tmp_path, monkeypatch):
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")
    process(detector, parts.Output(str(tmp_path / "results"), "parquet"), find(images))
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "archives.md").read_text()
    queries = [block.partition("```")[0] for block in page.split("```sql\n")[1:] if "results/" in block.partition("```")[0]]
    results = [duckdb.sql(query).fetchall() for query in queries]
    assert len(results) == 4 and all(results)
    assert dict(results[2]) == {"not a supported image, or corrupt": 1, "the file is empty": 1}
    for block in page.split("```python\n")[1:]:
        scope: dict = {}
        exec(block.partition("```")[0], scope)
        assert scope["share"].between(0, 1).all() and len(scope["share"]) == 1


@pytest.mark.slow
def test_command_with_ray(images, image_script, tmp_path):
    command = [sys.executable, "detect_mask_archive.py", "-i", str(images), "-o", str(tmp_path / "out"), "--actors", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    output = make_output(tmp_path)
    assert sorted(json.dumps(record) for record in records(output) if "error" not in record) == image_script
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["images"] == 6 and summary["failed"] == 2 and summary["faces"] == 24
    command_to_select = [
        sys.executable,
        "-m",
        "facemask",
        "select",
        str(tmp_path / "out"),
        "-n",
        "2",
        "-o",
        str(tmp_path / "new"),
    ]
    selection = subprocess.run(command_to_select, cwd=ROOT, capture_output=True, text=True)
    assert selection.returncode == 0 and "only 1 of the 3 most uncertain images are unlike each other" in selection.stderr
    assert [path.name for path in (tmp_path / "new" / "images").iterdir()] in (["0.jpg"], ["1.jpg"], ["2.jpg"])
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr.splitlines()[-1].startswith("error: ") and "--resume" in refused.stderr


def test_rows_of_names_that_are_not_utf_8(tmp_path):
    name = b"a\xff.jpg".decode("utf-8", "surrogateescape")
    row = tables.Row({"image": name, "error": f"{name}: broken"})
    (record,) = parts.decode_parquet(tables.FACES, parts.encode_parquet(tables.FACES, [row]))
    assert record == {"image": "a\\udcff.jpg", "error": "a\\udcff.jpg: broken"}
    assert sources.cut_units(sources.Found([name]), 1, {"a\\udcff.jpg"}, ()) == []
