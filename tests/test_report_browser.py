from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecv.devices.browser import chromium_here
from edgecv.report import render_html
from tests.sample_results import sample, sample_causes, sample_measurements

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium_here()
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    measurements = {**sample_measurements(), **sample_causes()}
    path.write_text(render_html(sample(), measurements, command="edgecv run", max_drop_pp=2.0), encoding="utf-8")
    return path


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")], ids=str)
def opened(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[tuple[Any, list[str], list[str]]]:
    """The page at a width and a colour scheme, what it complained of, and what it asked for."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda one: requests.append(one.url))
    page.goto(report.as_uri(), wait_until="networkidle")
    yield page, complaints, requests
    page.close()


def test_the_browser_has_nothing_to_complain_of_and_asks_for_nothing_else(opened: Any, report: Path) -> None:
    _, complaints, requests = opened
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]


def test_the_page_does_not_scroll_sideways(opened: Any) -> None:
    page, _, _ = opened
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_verdict_is_on_the_first_screen_and_the_plots_are_drawn(opened: Any) -> None:
    page, _, _ = opened
    assert page.get_by_text("int8 is the best verified version").first.bounding_box()["y"] < 300
    assert page.locator("figure svg").count() == 4
    assert all(one.bounding_box()["height"] > 150 for one in page.locator("figure svg").all())


def test_labels_in_a_plot_do_not_cover_each_other(opened: Any) -> None:
    page, _, _ = opened
    for figure in page.locator("figure").all()[:2]:
        boxes = [label.bounding_box() for label in figure.locator("text.label").all()]
        for number, a in enumerate(boxes):
            for b in boxes[number + 1 :]:
                apart_x = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
                # A line of text is boxed with its leading: a fifth of it may be shared.
                apart_y = abs(a["y"] - b["y"]) >= 0.8 * min(a["height"], b["height"])
                assert apart_x or apart_y


def test_text_stands_out_from_its_background(opened: Any) -> None:
    page, _, _ = opened
    ratios = page.evaluate("""() => {
      const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b }
      const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor
        if (!c.startsWith('rgba')) return c } return 'rgb(255, 255, 255)' }
      return [...document.querySelectorAll('p, h1, h2, h3, th, td, dt, dd, li, summary, .chip, code')].map(e => {
        const pair = [light(getComputedStyle(e).color), light(back(e))].sort((a, b) => b - a)
        return (pair[0] + 0.05) / (pair[1] + 0.05) })
    }""")
    assert min(ratios) >= 4.5


def test_photographs_with_another_answer_are_shown_at_their_size(opened: Any) -> None:
    page, _, _ = opened
    first = page.locator("#changed ~ details").first
    assert first.locator("img").count() == 7
    assert all(one.evaluate("e => e.complete && e.naturalWidth") == 64 for one in first.locator("img").all())
    boxes = [one.bounding_box() for one in first.locator("li").all()]
    assert all(box["x"] + box["width"] <= page.viewport_size["width"] for box in boxes)
