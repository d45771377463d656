"""Runs over archives in this process, as actors do them, without Ray."""

from collections import Counter
from pathlib import Path

from facemask.archive import parts, sources, tables, worker
from facemask.archive.runs import begin
from facemask.archive.works import work_of

OPTIONS = {"confidence": 0.5}


def find(*names: object, column: str | None = None) -> sources.Found:
    return sources.find_sources([str(name) for name in names], Counter(), column)


def process(detector, output, found, size=2, *, resume=False, units=None) -> parts.Counts:
    """Process what is not done yet, as a run does; return the counts of the whole output."""
    settings = worker.Settings(lambda: detector, output, f"run {resume}", 0.5, 250_000_000)
    work = work_of(found)
    with begin(output, settings.run, OPTIONS, resume):
        earlier = parts.scan(output, work.table, work.count)
        actor = work.worker(settings)
        for unit in sources.cut_units(found, size, earlier.names, earlier.finished)[:units]:
            earlier.counts.update(actor.process(unit).counts)
    return earlier.counts


def records(output: parts.Output, table: tables.Table = tables.FACES) -> list[dict]:
    """Return the records of a table by name; those of one name as they were written."""
    return sorted(output.records(table), key=lambda record: record[table.name])


def make_output(tmp_path: Path, name="out", kind="parquet") -> parts.Output:
    return parts.Output(str(tmp_path / name), kind)
