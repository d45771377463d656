"""Archives of video: tracks and events are the video script's, clip by clip."""

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra [archive]: pip install -r requirements-archive.txt")

import detect_mask_archive
import detect_mask_video
from examples.make_video import make_video
from facemask.archive import tables, worker
from facemask.archive.clips import ClipWorker
from facemask.archive.sources import Clip
from facemask.cli import options
from facemask.errors import InputError
from tests.archive.runs import find, make_output, process, records
from tests.helpers import EXAMPLES, ROOT, numbered, write_video

pytestmark = [pytest.mark.archive, pytest.mark.slow]


@pytest.fixture(scope="module")
def detector():
    args = detect_mask_archive.build_parser().parse_args(["-i", "x", "-o", "y", "--tiles", "off", "--turns", "off"])
    return options.load_detector(args, 1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """A folder with a clip of people, one without, one that is cut off, and a file that is not a video."""
    folder = tmp_path_factory.mktemp("clips")
    people = make_video(folder / "people.mkv", frames=50)
    write_video(folder / "empty.mp4", [numbered(0)] * 10)
    (folder / "cut.mkv").write_bytes(people.read_bytes()[: people.stat().st_size // 3])
    (folder / "none.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def video_script(clips, tmp_path_factory) -> dict[str, list[dict]]:
    """The lines of --events and --jsonl that the video script writes for two of the clips."""
    folder = tmp_path_factory.mktemp("script")
    files = {"events": folder / "events.jsonl", "frames": folder / "frames.jsonl"}
    names = [str(clips / name) for name in ("cut.mkv", "people.mkv")]
    arguments = ["-i", *names, "--events", str(files["events"]), "--jsonl", str(files["frames"]), "--no-show"]
    assert detect_mask_video.main(arguments) == 1  # one is cut off
    return {name: [json.loads(line) for line in file.read_text().splitlines()] for name, file in files.items()}


@pytest.fixture(scope="module")
def whole(detector, clips, tmp_path_factory):
    """The output of an undisturbed run, and its counts."""
    output = make_output(tmp_path_factory.mktemp("whole"))
    return output, process(detector, output, find(clips))


def test_tracks_and_events_are_the_video_scripts(clips, video_script, whole):
    output, counts = whole
    assert video_script["events"] and records(output, tables.EVENTS) == video_script["events"]
    times: dict = {}
    for line in video_script["frames"]:
        for face in line["faces"]:
            if face["track"] is not None:
                times.setdefault((line["source"], face["track"]), []).append(line["time"])
    tracks = records(output, tables.TRACKS)
    found = {(track["source"], track["track"]): (track["first_time"], track["last_time"], track["frames"]) for track in tracks}
    assert found == {key: (each[0], each[-1], len(each)) for key, each in times.items()} and len(found) == len(tracks)
    by_name = {Path(record["source"]).name: record for record in records(output, tables.CLIPS)}
    frames = [line for line in video_script["frames"] if line["source"].endswith("people.mkv")]
    people = by_name["people.mkv"]
    assert (people["width"], people["height"], people["frames"], people["seconds"]) == (640, 400, 50, frames[-1]["time"])
    assert people["faces"] == sum(len(frame["faces"]) for frame in frames)
    assert people["tracks"] == len([track for track in tracks if track["source"].endswith("people.mkv")])
    assert sum(people["people"].values()) == people["tracks"] and "fault" not in people
    assert "breaks off" in by_name["cut.mkv"]["fault"] and 0 < by_name["cut.mkv"]["frames"] < 50
    assert (by_name["empty.mp4"]["frames"], by_name["empty.mp4"]["tracks"]) == (10, 0)
    none = clips / "none.mp4"
    assert by_name["none.mp4"] == {
        "source": str(none), "error": f"{none}: cannot be opened as a video; check that it is one and plays elsewhere"
    }  # fmt: skip
    assert (counts.totals["clips"], counts.totals["failed"], counts.totals["incomplete"]) == (4, 1, 1)
    assert counts.totals["events"] == len(video_script["events"])
    assert counts.errors == {"cannot be opened as a video": 1}


def test_query_of_the_page(video_script, whole):
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")
    page = (ROOT / "docs" / "archives.md").read_text()
    (query,) = [block.partition("```")[0] for block in page.split("```sql\n") if "tracks/tracks" in block.partition("```")[0]]
    rows = duckdb.sql(query.replace("'tracks/", f"'{whole[0].uri}/").replace(">= 10", ">= 0.1")).fetchall()
    ended = [event for event in video_script["events"] if event["event"] == "ended" and event["label"] == "without_mask"]
    assert sorted(rows) == sorted((event["source"], event["track"], event["first_time"], event["last_time"]) for event in ended)
    assert rows


def test_json_lines_are_those_of_events(detector, clips, video_script, tmp_path):
    output = make_output(tmp_path, kind="jsonl")
    process(detector, output, find(clips / "cut.mkv"))
    (part,) = (tmp_path / "out" / "events").glob("*/*.jsonl")
    lines = [json.dumps(event) for event in video_script["events"] if event["source"].endswith("cut.mkv")]
    assert part.read_text().splitlines() == lines


def test_resumed_run_equals_an_undisturbed_one(detector, clips, whole, tmp_path, monkeypatch):
    stopped = make_output(tmp_path)
    process(detector, stopped, find(clips), units=2)
    store, path = stopped.parts(tables.CLIPS)[0], stopped.parts(tables.CLIPS)[1][0]
    (record,) = stopped.read_part(tables.CLIPS, store, path)
    Path(path).unlink()  # killed before the row of the clip was written
    run, names = ClipWorker._run, []
    monkeypatch.setattr(ClipWorker, "_run", lambda self, path, name: names.append(name) or run(self, path, name))
    assert process(detector, stopped, find(clips), resume=True) == whole[1]
    assert len(names) == 3 and record["source"] in names
    for table in (tables.CLIPS, tables.TRACKS, tables.EVENTS):
        assert records(stopped, table) == records(whole[0], table)


def test_clip_at_which_processes_end_becomes_an_error(detector, clips, tmp_path, monkeypatch):
    class Died(BaseException):
        pass

    def die(*_):
        raise Died

    output = make_output(tmp_path)
    process(detector, output, find(clips / "people.mkv"), units=0)
    actor = ClipWorker(worker.Settings(lambda: detector, output, "run False", 0.5, 250_000_000))
    monkeypatch.setattr(actor, "_run", die)
    clip = Clip(str(clips / "people.mkv"))
    for _ in range(worker.CAREFUL + worker.DEADLY - 1):
        with pytest.raises(Died):
            actor.process(clip)
    actor.process(clip)
    (record,) = records(output, tables.CLIPS)
    assert "ended the process that read it" in record["error"]


def test_folder_with_images_has_its_videos_skipped_and_a_folder_with_videos_alone_does_not(clips, tmp_path):
    assert [Path(shard.uri).name for shard in find(clips).shards] == ["cut.mkv", "empty.mp4", "none.mp4", "people.mkv"]
    assert find(clips / "*.mkv").are_clips and find(clips / "none.mp4").are_clips
    (tmp_path / "people.mkv").write_bytes((clips / "people.mkv").read_bytes())
    (tmp_path / "astronaut.jpg").write_bytes((EXAMPLES / "astronaut.jpg").read_bytes())
    found = find(tmp_path)
    assert len(found.images) == 1 and not found.shards
    with pytest.raises(InputError, match="a video among images"):
        find(tmp_path, clips)
