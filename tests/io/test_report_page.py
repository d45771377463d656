"""The page of a report: what it holds, and that it filters in a browser without a network."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from facemask.io.report_page import MAX_TILES, Count, Table, Tile, Worst, relative_link, thumbnail, write_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RED = (0, 0, 255)


def tile(number=0, probability=0.9, confidence=0.8, key="with_mask", **more):
    return Tile(key, f"{key} {number}", RED, "face 80%", f"{number}.jpg", probability, confidence, number=number, **more)


def write(path, tiles, tables=(), notes=()):
    labels = [("with_mask", "Mask", 1), ("without_mask", "No mask", 2)]
    write_page(path, "Title", "today", [Count("images", 3, RED)], labels, notes, tiles, tables)
    return path.read_text(encoding="utf-8")


def test_worst_keeps_the_least_probable_in_order():
    worst = Worst(3)
    for number, probability in enumerate([0.9, 0.5, 0.7, 0.6, 0.5, 0.99]):
        if worst.takes(probability):
            worst.add(tile(number, probability))
    assert [(kept.probability, kept.number) for kept in worst] == [(0.5, 1), (0.5, 4), (0.6, 3)]
    assert worst.dropped == 3
    assert not worst.takes(0.6) and worst.takes(0.59)  # before a thumbnail is made


def test_page_is_bounded():
    assert MAX_TILES * 8_000 < 20e6  # bytes of thumbnails


def test_page_loads_nothing_and_escapes_names(tmp_path):
    evil = "<script>alert(1)</script>&\"'"
    tiles = [Tile("with_mask", evil, RED, evil, evil, 0.5, 0.5, link=evil, thumbnail=thumbnail(np.zeros((9, 9, 3), np.uint8)))]
    page = write(tmp_path / "r.html", tiles, [Table(evil, evil, [evil], [[evil]])], [evil])
    assert page.count("<script>") == 1 and "alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39;" in page
    urls = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert [url for url in urls if not url.startswith("data:image/jpeg;base64,")] == [
        "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39;"
    ]
    assert "default-src 'none'" in page and "http" not in re.sub(r"data:[^\"]*|http-equiv", "", page)


def test_name_that_is_not_utf8(tmp_path):
    assert "caf?.jpg" in write(tmp_path / "r.html", [Tile("a", "a", RED, "", "caf\udce9.jpg", 1, 1)])


@pytest.mark.parametrize(
    ("file", "link"),
    [("in/a b&.jpg", "../in/a%20b%26.jpg"), ("out/ü.jpg", "%C3%BC.jpg"), ("caf\udce9.jpg", "../caf%E9.jpg")],
)
def test_relative_link(tmp_path, file, link):
    assert relative_link(tmp_path / file, tmp_path / "out" / "r.html") == link


def test_thumbnail_shows_the_surroundings_of_a_box():
    import base64

    import cv2

    image = np.zeros((400, 400, 3), np.uint8)
    image[100:140, 100:140] = 255
    data = base64.b64decode(thumbnail(image, (100, 100, 140, 140), RED).removeprefix("data:image/jpeg;base64,"))
    small = cv2.imdecode(np.frombuffer(data, np.uint8), 1)
    assert small.shape == (150, 150, 3)
    assert (small[45:105, 45:105] > 200).all() and (small[:30] < 50).all()
    red = small[75, 36:39].astype(int)
    assert (red[:, 2] - red[:, 0]).max() > 80  # the box's left side


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("change", "order", "shown"),
    [
        pytest.param("", "1 2 0", "3 of 3 shown", id="worst first"),
        pytest.param("form.order.value = 'best'; form.order.dispatchEvent(new Event('change'))", "0 2 1", "3 of 3 shown", id="best first"),
        pytest.param("form.order.value = 'given'; form.order.dispatchEvent(new Event('change'))", "0 1 2", "3 of 3 shown", id="as given"),
        pytest.param("form.querySelector('[value=with_mask]').click()", "1 2", "2 of 3 shown", id="label"),
        pytest.param("form.unsure.click()", "1", "1 of 3 shown", id="unsure"),
        pytest.param("form.probability.value = 80; form.dispatchEvent(new Event('input'))", "1 2", "2 of 3 shown", id="probability"),
        pytest.param("form.confidence.value = 70; form.dispatchEvent(new Event('input'))", "2 0", "2 of 3 shown", id="confidence"),
        pytest.param("form.text.value = '2.JPG'; form.dispatchEvent(new Event('input'))", "2", "1 of 3 shown", id="name"),
    ],
)  # fmt: skip
def test_page_filters_in_a_browser(tmp_path, change, order, shown):
    tiles = [
        tile(1, 0.5, 0.6, "without_mask", is_unsure=True),
        tile(2, 0.7, 0.8, "without_mask"),
        tile(0, 0.9, 0.9, thumbnail=thumbnail(np.zeros((9, 9, 3), np.uint8))),
    ]
    page = write(tmp_path / "r.html", tiles)
    result = (
        "const order = [...document.querySelectorAll('figure:not([hidden])')].map(tile => tile.dataset.number).join(' ');"
        "const image = document.querySelector('img');"
        "document.body.append(`RESULT ${order}; ${document.getElementById('shown').textContent}; ${image.complete}`);"
    )
    (tmp_path / "r.html").write_text(page.replace("filter();\n</script>", f"filter();\n{change};\n{result}</script>"))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "r.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert re.search(r"RESULT ([^;]*); ([^;]*);", done.stdout.rpartition("</script>")[2]).groups() == (order, shown)
