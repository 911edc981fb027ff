"""The report of a second pattern of fraud, through a real system, as a person sees it in a real browser."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.browser import Browser, BrowserError, find_browser

ROOT = Path(__file__).parents[2]
CHAMPION, SHADOW = (0x3D, 0x6E, 0xA5), (0xD9, 0x63, 0x2B)
#: Elements that a person would see cut off or on top of another.
SPILLS = """
[...document.querySelectorAll('h1,h2,h3,p,li,td,th,.tile b,.tile span,caption')].filter(e => {
  const r = e.getBoundingClientRect();
  return r.width > 0 && (r.left < 0 || r.right > innerWidth + 1 || e.scrollWidth > e.clientWidth + 2
    && getComputedStyle(e).display !== 'inline');
}).map(e => e.tagName + ': ' + e.textContent.slice(0, 60))
"""
#: Labels of pictures that lie on one another: their boxes overlap by more than a little.
COLLISIONS = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const all = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  return all.flatMap(([a, r], i) => all.slice(i + 1).filter(([b, s]) =>
    Math.min(r.right, s.right) - Math.max(r.left, s.left) > 2
    && Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > 4).map(([b]) => a + ' / ' + b));
})
"""


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that the example writes."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "examples.second_pattern", "--payments", "6000", "--rate", "0"),
            *("--trained-on", "12000"),
            *("--html", str(file), "--json"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "better"
    assert told["labels"] == told["figures"]["observations"] == 6000
    assert told["figures"]["coverage"] == 1
    assert told["figures"]["auc_gain_low"] > 0.03
    assert told["figures"]["precision_gain_low"] > 0.05
    return file


@pytest.fixture(scope="module")
def chromium() -> str:
    try:
        return find_browser()
    except BrowserError as error:
        pytest.skip(f"{error}; without it no page is looked at")


def share_near(png: bytes, colour: tuple[int, int, int], *, within: int = 12) -> float:
    """Return which share of a picture's pixels is nearly of a colour."""
    from matplotlib.image import imread

    pixels = np.rint(imread(io.BytesIO(png))[..., :3] * 255).astype(np.int64)
    return float((np.abs(pixels - np.array(colour)) <= within).all(axis=-1).mean())


def test_a_person_sees_that_the_new_model_is_better(report: Path, chromium: str) -> None:
    del chromium
    with Browser() as browser:
        browser.open(report)
        text = browser.evaluate("document.body.innerText")
        picture = browser.picture()
        assert browser.evaluate(SPILLS) == []
        assert browser.evaluate(COLLISIONS) == []
        verdict = browser.evaluate("document.querySelector('#verdict').getBoundingClientRect().bottom")
        sizes = browser.evaluate(
            "[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().height)"
        )
    assert "The shadow is better than the champion" in text
    assert verdict < 900  # seen without scrolling
    for heading in (
        "With labels: what is gained",
        "Where to put the threshold",
        "Agreement and scores",
        "Decisions",
        "The most different transactions",
        "Slices where they differ most",
        "Drift of overridden features",
        "Time of each stage",
        "Coverage and lag",
    ):
        assert heading in text
    assert re.search(r"approve\s+review\s+\d", text)
    assert "contactless" in text  # where the second pattern is
    assert "NaN" not in text
    assert "undefined" not in text
    assert len(sizes) == 7
    assert min(sizes) > 150
    assert share_near(picture, CHAMPION) > 0.0005
    assert share_near(picture, SHADOW) > 0.0005
    assert browser.requests == [report.resolve().as_uri()]
    assert browser.errors == []


def test_the_page_is_readable_in_the_dark_and_on_a_phone(report: Path, chromium: str) -> None:
    del chromium
    with Browser(dark=True) as browser:
        browser.open(report)
        page, ink, axis = (
            browser.evaluate(f"getComputedStyle(document.querySelector('{where}')).{what}")
            for where, what in (("body", "backgroundColor"), ("body", "color"), ("svg text", "fill"))
        )
        picture = browser.picture(height=1500)
    assert contrast(page, ink) > 7
    assert contrast(page, axis) > 7
    assert share_near(picture, channels(page)) > 0.5
    with Browser(width=400, height=800) as browser:
        browser.open(report)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 400


def channels(colour: str) -> tuple[int, int, int]:
    red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
    return red, green, blue


def contrast(a: str, b: str) -> float:
    """Return the ratio of contrast of two colours, by the Web Content Accessibility Guidelines 2."""

    def luminance(colour: str) -> float:
        parts = [value / 255 for value in channels(colour)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(k * c for k, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
