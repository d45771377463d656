"""docs/errors.md as a whole: each of its tables has a test file."""

from pathlib import Path

from tests.faults.fault_table import read_tables


def test_each_table_has_a_test_file():
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*_faults.py")]
    tested = {heading for heading in read_tables() for source in sources if f'TABLE = FaultTable("{heading}")' in source}
    assert tested == read_tables().keys() and len(tested) == len(sources)
