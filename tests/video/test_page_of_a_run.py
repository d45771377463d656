"""The whole program with its page in a browser: two cameras, for other machines, with a password, events and snapshots."""

import json
import re
import subprocess
import sys
import threading
import time

import cv2
import pytest

from tests.helpers import EXAMPLES, ROOT, Camera
from tests.video.browser import Browser, needs_chromium

WAIT = 120  # s, for another process on a busy machine


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("given", [None, "a password of ours"], ids=["printed", "given"])
def test_two_cameras_in_a_browser_with_a_password(tmp_path, given):
    image = cv2.resize(cv2.imread(str(EXAMPLES / "people.jpg")), (304, 160), interpolation=cv2.INTER_AREA)
    with Camera([image] * 5000, 4) as door, Camera([image[:, :152]] * 5000, 4) as till:
        events, shots = tmp_path / "events.jsonl", tmp_path / "shots"
        command = [sys.executable, "detect_mask_video.py", "-i", door.url, till.url, "--serve", "0.0.0.0:0", "--no-show"]
        command += ["--events", str(events), "--snapshots", str(shots), *(["--password", given] if given else [])]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        try:
            lines: list[str] = []
            reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
            reader.start()
            deadline = time.monotonic() + WAIT
            while not (found := re.search(r"watch at http://0\.0\.0\.0:(\d+)/(?: with the password (\S+))?", "".join(lines))):
                assert time.monotonic() < deadline and process.poll() is None, lines
                time.sleep(0.1)
            password = given or found[2]
            assert password and (given is None or found[2] is None)
            with Browser(tmp_path / "profile") as browser:
                browser.open(f"http://127.0.0.1:{found[1]}/")
                browser.wait_for("document.querySelector('input')?.name === 'password'")
                browser.run(f"document.querySelector('input').value = '{password}'; document.querySelector('button').click()")
                browser.wait_for("typeof tiles !== 'undefined' && tiles.length === 2 && tiles.every(tile => tile.part)")
                names = browser.run("tiles.map(tile => tile.name.textContent).join(' ')").split()
                assert names == [door.url, till.url]
                assert browser.run("tiles.map(tile => `${tile.part.width}x${tile.part.height}`).join()") == "304x160,152x160"
                browser.wait_for("tiles[0].part.faces.length === 8")
                browser.wait_for(f"['{door.url}', '{till.url}'].every(url => at('events').textContent.includes(url))")
                browser.wait_for(
                    "[...at('events').querySelectorAll('img')].some(image => image.complete && image.naturalWidth > 0)"
                )
                assert browser.run("at('events').children.length === at('events').querySelectorAll('img').length")
            process.terminate()
            assert process.wait(WAIT) == 143
        finally:
            process.kill()
            process.wait()
            reader.join(WAIT)
            process.stderr.close()
    assert "".join(lines).count(password) == (given is None)
    records = [json.loads(line) for line in events.read_text().splitlines()]
    confirmed = [record for record in records if record["event"] == "confirmed"]
    assert {record["source"] for record in confirmed} == {door.url, till.url}
    assert sorted(record["snapshot"] for record in confirmed) == sorted(map(str, shots.iterdir()))
