"""The whole program with its page in a browser: two cameras, for other machines, with the password that it prints."""

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
def test_two_cameras_in_a_browser_with_the_printed_password(tmp_path):
    image = cv2.resize(cv2.imread(str(EXAMPLES / "people.jpg")), (304, 160), interpolation=cv2.INTER_AREA)
    with Camera([image] * 5000, 4) as door, Camera([image[:, :152]] * 5000, 4) as till:
        command = [sys.executable, "detect_mask_video.py", "-i", door.url, till.url, "--serve", "0.0.0.0:0", "--no-show"]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        try:
            lines: list[str] = []
            reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
            reader.start()
            deadline = time.monotonic() + WAIT
            while not (found := re.search(r"watch at http://0\.0\.0\.0:(\d+)/ with the password (\S+)", "".join(lines))):
                assert time.monotonic() < deadline and process.poll() is None, lines
                time.sleep(0.1)
            with Browser(tmp_path / "profile") as browser:
                browser.open(f"http://127.0.0.1:{found[1]}/")
                browser.wait_for("document.querySelector('input')?.name === 'password'")
                browser.run(f"document.querySelector('input').value = '{found[2]}'; document.querySelector('button').click()")
                browser.wait_for("typeof tiles !== 'undefined' && tiles.length === 2 && tiles.every(tile => tile.part)")
                names = browser.run("tiles.map(tile => tile.name.textContent).join(' ')").split()
                assert names == [door.url, till.url]
                assert browser.run("tiles.map(tile => `${tile.part.width}x${tile.part.height}`).join()") == "304x160,152x160"
                browser.wait_for("tiles[0].part.faces.length === 8")
            process.terminate()
            assert process.wait(WAIT) == 143
        finally:
            process.kill()
            process.wait()
            reader.join(WAIT)
            process.stderr.close()
    assert "".join(lines).count(found[2]) == 1
