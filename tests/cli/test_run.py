import json
import os
import signal
import subprocess
import sys

import pytest

from facemask.cli.run import run
from facemask.errors import one_line
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain ü 😷.jpg", "plain ü 😷.jpg"),
        ("line\nfeed\r\t", "line\\nfeed\\r\\t"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        (os.fsdecode(b"caf\xe9"), "caf\\udce9"),
        ("turned \u202e round", "turned \\u202e round"),
        ("", ""),
    ],
)
def test_one_line(text, line):
    assert one_line(text) == line


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_end_a_script_with_their_number(capsys, name):
    number = getattr(signal, name)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
    assert run(lambda args: os.kill(os.getpid(), number) or signal.pause(), None) == 128 + number
    assert capsys.readouterr().err == "[INFO] stopped\n"
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == before


def test_too_little_memory(capsys):
    def script(args):
        raise MemoryError

    assert run(script, None) == 1
    assert capsys.readouterr().err == "error: memory: there is not enough; give smaller images, or fewer at once\n"


def test_what_c_libraries_write_is_not_shown():
    code = (
        "import os, sys\n"
        "from facemask.cli.run import run\n"
        "def script(args):\n"
        "    os.write(2, b'C library'); print('ours', file=sys.stderr); return 3\n"
        "code = run(script, None)\n"
        "os.write(2, b'after'); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "ours\nafter")


def test_second_signal_ends_at_once():
    code = (
        "import sys, time\n"
        "from facemask.cli.run import run\n"
        "def script(args):\n"
        "    try:\n"
        "        print('started', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        print('stopping', flush=True); time.sleep(60)\n"
        "sys.exit(run(script, None))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- 2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path, closed):
    data = bytearray((ROOT / "examples/astronaut.jpg").read_bytes())
    data[-900:-800] = b"U" * 100
    (tmp_path / "a.jpg").write_bytes(data)  # of which libjpeg complains
    script = f"{sys.executable} detect_mask_image.py -i {tmp_path}/a.jpg examples/people.jpg --jsonl {tmp_path}/o.jsonl {closed}"
    assert subprocess.run(["sh", "-c", script], cwd=ROOT).returncode == 0
    assert [len(json.loads(line)["faces"]) for line in (tmp_path / "o.jsonl").read_text().splitlines()] == [1, 8]


def test_crash_is_told():
    code = "import faulthandler, sys\nfrom facemask.cli.run import run\nrun(lambda args: faulthandler._sigsegv(), None)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode < 0 and done.stderr.startswith("Fatal Python error: Segmentation fault")
