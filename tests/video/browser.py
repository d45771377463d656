"""A headless Chromium that tests drive over its DevTools protocol, without further packages."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
    "--ignore-certificate-errors", "--remote-debugging-pipe",
]  # fmt: skip
WAIT = 60  # s, on a busy machine

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")


class Browser:
    """A context manager: one window of Chromium, `width` x `height` px."""

    def __init__(self, profile: Path, width: int = 1200, height: int = 800, options: tuple[str, ...] = ()) -> None:
        asked, answered = os.pipe(), os.pipe()  # each (read, write)
        arguments = [
            str(CHROMIUM),
            *OPTIONS,
            *options,
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        # Chromium reads commands from file 3 and writes answers to file 4
        shell = 'exec 3<&"$0" 4>&"$1"; shift; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, str(asked[0]), str(answered[1]), *arguments],
            pass_fds=(asked[0], answered[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(asked[0])
        os.close(answered[1])
        self._commands, self._answers = open(asked[1], "wb", buffering=0), open(answered[0], "rb")  # noqa: SIM115
        self._number, self._session = 0, ""
        target = next(each for each in self._call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self._call("Page.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._commands.close()
        self._answers.close()

    def _call(self, method: str, **parameters: object) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            data = bytearray()
            while (byte := self._answers.read(1)) != b"\0":
                assert byte, "Chromium has ended"
                data += byte
            answer = json.loads(data)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        result = self._call("Page.navigate", url=url)
        assert "errorText" not in result, result

    def run(self, script: str) -> object:
        """Return the value of a JavaScript expression; None if it has none, or throws as the page is not there yet."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get("value")

    def wait_for(self, script: str) -> object:
        """Return the value of a JavaScript expression once it is true."""
        deadline = time.monotonic() + WAIT
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"{script}: {self.run('document.body.innerText')}"
            time.sleep(0.1)
        return value

    def choose_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Choose files in a file input, as a person does in its dialogue."""
        element = self._call("Runtime.evaluate", expression=f"document.querySelector('{selector}')")["result"]["objectId"]
        self._call("DOM.setFileInputFiles", objectId=element, files=[str(path.resolve()) for path in paths])

    def download_to(self, folder: Path) -> None:
        """Save downloads in a folder, without a question."""
        self._call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def resize(self, width: int, height: int, scale: float = 1.0, mobile: bool = False) -> None:
        """Give the page this size in CSS px, as of a screen with `scale` dots for each."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """Return what the window shows, int (H, W, 3) BGR."""
        data = base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(data)
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)
