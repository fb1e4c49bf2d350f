"""The page of results, opened in a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest
from PIL import Image

from featkit.analyses.base import RESULT_FILE, Figure, Result
from featkit.analyses.dissect.gallery import Gallery
from featkit.errors import DiskFullError, UsageError
from featkit.report.dissection import write_page
from featkit.report.figures import draw_figures
from featkit.report.page import LARGEST, ROWS, UNITS, write_report
from tests.analyses.dissections import unit_rows

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "</style></script><script>document.title='run'</script><img src=x onerror=alert(1)>\"'&"


def knn(columns: int = 3, rows: int = 50) -> Result:
    extra = {f"a rather long column {i}": i / 7 for i in range(columns)}
    return Result(
        "knn",
        {"k": [1, 5], "temperature": 0.07},
        scalars={"classes": 10, "top1": 0.83452, "best": "a/b"},
        tables={
            "accuracy": [
                {"features": f"net{i}/avgpool", "k": 5, "top1": 0.5 + i / 100, **extra}
                for i in range(rows)
            ],
            "none": [],
        },
        figures=[Figure("accuracy", "bar", "accuracy", "How good", "features", "top1", most=5)],
        provenance={"inputs": {"train": [{"table": "train/a.h5", "key": "ab" * 32}]}, "seed": 0},
        notes=["two images could not be read"],
    )


def save(result: Result, folder: Path) -> Path:
    result.save(folder)
    draw_figures(result, folder)
    return folder


def hostile() -> Result:
    rows = [{HOSTILE: HOSTILE, "x": "w" * 5000, "y": float("nan")}]
    return Result(
        HOSTILE, {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE}, {"rows": rows},
        provenance={HOSTILE: [{HOSTILE: HOSTILE}]}, notes=[HOSTILE],
    )  # fmt: skip


def dissection(folder: Path) -> Path:
    rows = unit_rows({"object/car": 30}, 40)
    scalars = {"detectors": 30, "units": 40, "unique_concepts": 1, "images": 4}
    recipe = {"size": [8, 8], "resize": None}
    result = Result(
        "dissect", {"tap": "res4", "min_iou": 0.04, "variant": "dissect", "concepts": ["color"]},
        scalars, {"units": [{**row, "active": 0.01} for row in rows], "categories": [{"a": 1}]},
        provenance={"backbone": {"name": "net"}, "preprocessing": recipe},
    )  # fmt: skip
    gallery = Gallery((2, 2), np.zeros((40, 1), np.int64))
    gallery.keep(0, "a.png", np.full((8, 8, 3), 90, np.uint8))
    for unit in range(40):
        gallery.mark(unit, 0, np.eye(2, dtype=bool))
    result.save(folder)
    write_page(result, gallery, folder)
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    folders = [save(knn(), root / "knn"), save(knn(30), root / "wide"), dissection(root / "seen")]
    return {
        "one": write_report(folders[:1], root / "one.html"),
        "many": write_report([*folders, knn()], root / "many.html", "Four results"),
        "hostile": write_report([hostile(), save(hostile(), root / "h")], root / "hostile.html"),
    }


def test_every_page_is_valid_html_with_headings_in_order(pages: dict[str, Path]) -> None:
    for page in pages.values():
        text = page.read_text("utf-8").lstrip()
        parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
        tree = parser.parse(text)
        levels = [int(e.tag[1]) for e in tree.iter() if re.fullmatch(r"h\d", str(e.tag))]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        ids = [e.get("id") for e in tree.iter() if e.get("id")]
        assert len(ids) == len(set(ids))
        for element in tree.iter():
            for name in ("aria-labelledby", "href"):
                assert element.get(name) is None or element.get(name).lstrip("#") in ids
        assert all(image.get("alt") for image in tree.iter("img"))
        assert all(cell.get("scope") in ("col", "row") for cell in tree.iter("th"))
        assert all(link.get("src", "data:").startswith("data:") for link in tree.iter("img"))
        assert not list(tree.iter("script")) + list(tree.iter("link"))


def test_what_a_page_says(pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["one"].read_text()
    root = pages["one"].parent
    for said in (
        "0.8345", "two images could not be read", "How good (bar: top1 by features)", "0.07",
        f"The first {ROWS} of 50 rows; all are in {root / 'knn' / 'accuracy'}.csv.", "ab" * 32,
    ):  # fmt: skip
        assert said in text
    assert text.count("<tr>") == ROWS + 1
    many = pages["many"].read_text()
    assert many.count("<figcaption>unit ") == UNITS
    assert f"all are in {root / 'seen' / 'index.html'}" in many
    assert "with what excites it outlined" in many
    assert re.findall(r'href="(#[^"]*)"', many) == [
        "#results",
        *(f"#result-{i}" for i in range(1, 5)),
    ]
    assert (
        write_report([root / "knn"], tmp_path / "again.html").read_bytes()
        == pages["one"].read_bytes()
    )


def test_nothing_hostile_gets_through(pages: dict[str, Path]) -> None:
    text = pages["hostile"].read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_a_figure_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = save(knn(), tmp_path / "knn")
    (folder / "accuracy.png").write_bytes(b"\x89PNG, in part")
    text = write_report([folder], tmp_path / "a.html").read_text()
    assert "the figure accuracy.png is not in the folder" in text
    (folder / "accuracy.png").unlink()
    content = json.loads((folder / RESULT_FILE).read_text())
    del content["sha256"]
    secret = tmp_path / "secret.png"
    Image.new("RGB", (2, 2)).save(secret)
    content["figures"] = ["accuracy", "../secret", 7]
    (folder / RESULT_FILE).write_text(json.dumps(content))
    text = write_report([folder], tmp_path / "a.html").read_text()
    assert "accuracy.png is not" in text
    assert base64.b64encode(secret.read_bytes()).decode() not in text


def test_a_figure_that_is_named_often_is_shown_once(tmp_path: Path) -> None:
    folder = save(knn(), tmp_path / "knn")
    once = write_report([folder], tmp_path / "a.html").read_text()
    content = json.loads((folder / RESULT_FILE).read_text())
    del content["sha256"]
    content["figures"] *= 1000
    (folder / RESULT_FILE).write_text(json.dumps(content))
    often = write_report([folder], tmp_path / "a.html").read_text()
    assert often.count("<img") == once.count("<img") > 0


def test_a_pipe_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "knn").mkdir()
    os.mkfifo(tmp_path / "knn" / RESULT_FILE)
    with pytest.raises(UsageError, match="holds no result"):
        write_report([tmp_path / "knn"], tmp_path / "a.html")


def test_what_is_no_figure_is_not_read(tmp_path: Path) -> None:
    folder = save(knn(), tmp_path / "knn")
    figure = folder / "accuracy.png"
    whole = figure.read_bytes()
    with figure.open("r+b") as file:
        file.truncate(LARGEST + 1)
    assert "accuracy.png is not" in write_report([folder], tmp_path / "a.html").read_text()
    figure.unlink()
    os.mkfifo(figure)
    assert "accuracy.png is not" in write_report([folder], tmp_path / "a.html").read_text()
    figure.unlink()
    figure.write_bytes(whole)
    assert "accuracy.png is not" not in write_report([folder], tmp_path / "a.html").read_text()


def test_a_result_that_is_nested_without_end(tmp_path: Path) -> None:
    folder = save(knn(), tmp_path / "knn")
    content = json.loads((folder / RESULT_FILE).read_text())
    del content["sha256"]
    content["scalars"]["x"] = json.loads("[" * 900 + "]" * 900)
    (folder / RESULT_FILE).write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is not whole"):
        write_report([folder], tmp_path / "a.html")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no result (No such file or directory)"),
        ("{", "is not whole, or not featkit's"),
        ("[]", "is not whole"),
        ('{"analysis": "knn"}', "is not whole"),
        (json.dumps({**json.loads(knn().to_json()), "tables": {"a": [1]}}), "is not whole"),
        (json.dumps({**json.loads(knn().to_json()), "tables": {"a": 1}}), "is not whole"),
        (json.dumps({**json.loads(knn().to_json()), "scalars": []}), "is not whole"),
        (json.dumps({**json.loads(knn().to_json()), "notes": [{}]}), "is not whole"),
    ],
)
def test_what_is_no_result(tmp_path: Path, content: str | None, message: str) -> None:
    folder, page = tmp_path / "folder", tmp_path / "page.html"
    folder.mkdir()
    page.write_text("before")
    if content is not None:
        (folder / RESULT_FILE).write_text(content)
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        write_report([folder], page)
    assert "\n" not in str(error.value)
    assert page.read_text() == "before"


def test_no_result_and_no_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no result given"):
        write_report([], tmp_path / "page.html")
    with pytest.raises(UsageError, match="cannot write the page to .* give another file"):
        write_report([knn()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_page_that_was_there(tmp_path: Path) -> None:
    folder = save(knn(), tmp_path / "knn")
    page = tmp_path / "page.html"
    page.write_text("before")
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    before += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    asked = ["report", str(folder), "-o", str(page)]
    code = f"{before}from featkit_cli.main import main; main({asked!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"featkit: cannot write the page to {page} (File too large): give another file\n"
    )
    assert page.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["knn", "page.html"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_disk_without_space_is_told_as_everywhere(tmp_path: Path) -> None:
    (tmp_path / "page.html.tmp").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match="disk full while writing the page"):
        write_report([knn()], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Open a page as wide as given; return what a script finds there."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: the page is not opened in a browser")
    profile = tmp_path_factory.mktemp("profile")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--hide-scrollbars", "--virtual-time-budget=2000", f"--user-data-dir={profile}",
    ]  # fmt: skip

    def call(page: Path, width: int, *more: str) -> dict[str, Any]:
        probe = page.with_name(f"probe-{width}-{page.name}")
        frame = (
            f"<!DOCTYPE html><iframe id=f src='{page.name}' "
            f"style='border:0;width:{width}px;height:900px'></iframe>"
            f"<pre id=said></pre><script>f.onload=()=>{{{SCRIPT}}}</script>"
        )
        probe.write_text(frame)
        done = subprocess.run(
            [CHROMIUM, *flags, "--allow-file-access-from-files", *more, "--window-size=1400,1000",
             "--dump-dom", probe.as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        found = re.search(r"<pre id=\"?said\"?>(.*?)</pre>", done.stdout, re.DOTALL)
        assert found is not None, done.stderr
        assert found[1], done.stderr
        content: dict[str, Any] = json.loads(found[1])
        return content

    return call


SCRIPT = """
const d = f.contentDocument, e = d.documentElement, w = f.contentWindow;
d.querySelectorAll('details').forEach(x => x.open = true);
said.textContent = JSON.stringify({
  title: d.title, over: e.scrollWidth - e.clientWidth, width: e.clientWidth,
  images: [...d.images].map(i => i.naturalWidth),
  asked: w.performance.getEntriesByType('resource').map(r => r.name.slice(0, 5)),
  wide: [...d.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth).length,
  ink: w.getComputedStyle(d.body).color, paper: w.getComputedStyle(d.body).backgroundColor,
  stops: d.querySelectorAll('.scroll[tabindex="0"][aria-labelledby], a[href], summary').length})
""".replace("\n", " ")


@pytest.mark.parametrize("name", ["one", "many", "hostile"])
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser(pages: dict[str, Path], browse: Any, name: str, width: int) -> None:
    seen = browse(pages[name], width)
    assert seen["width"] == width
    assert seen["over"] == 0
    assert all(seen["images"])
    assert set(seen["asked"]) <= {"data:"}
    assert len(seen["images"]) == {"one": 1, "many": 3 + UNITS, "hostile": 0}[name]
    assert seen["title"] == ("Four results" if name == "many" else "featkit report")
    assert seen["wide"] >= (name == "many")


def test_dark_and_light(pages: dict[str, Path], browse: Any) -> None:
    light = browse(pages["one"], 1280)
    dark = browse(pages["one"], 1281, "--force-dark-mode")

    def brightness(colour: str) -> float:
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    assert brightness(light["paper"]) > 200 > 80 > brightness(light["ink"])
    assert brightness(dark["paper"]) < 60 < 180 < brightness(dark["ink"])
