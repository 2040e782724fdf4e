"""Take the README's pictures, of a device's report and of the web app: `python -m benchmarks.pictures`.

The photographs are scikit-learn's handwritten digits (Alpaydin and Kaynak, UCI, CC BY 4.0).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT
from edgecv import pipeline
from edgecv.bundle.web import serve_web
from edgecv.devices.browser import chromium_here
from edgecv.terminal import Terminal
from tests.digits import write_digits

PICTURES, SHOWN = ROOT / "docs" / "pictures", "3"
RECIPE = ROOT / "tests" / "data" / "digits.toml"


def main() -> None:
    """Run the digits on the browser, and show what that leaves."""
    from playwright.sync_api import sync_playwright

    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Terminal() as terminal, sync_playwright() as playwright:
        digits, out = write_digits(Path(folder) / "digits"), Path(folder) / "run"
        stages, targets = pipeline.prepare(RECIPE, targets=["browser"], data=digits, out=out, listener=terminal)
        pipeline.execute(stages, targets, bundles=True, command="edgecv run digits.toml --target browser --bundle")
        browser = playwright.chromium.launch(executable_path=chromium_here(), args=["--no-sandbox"])
        _report(browser, out / "report.html")
        _web_app(browser, out, next((digits / SHOWN).iterdir()))


def _report(chromium: Any, report: Path) -> None:
    page = chromium.new_page(viewport={"width": 1000, "height": 900})
    page.goto(report.as_uri())
    page.screenshot(path=PICTURES / "report.png")


def _web_app(chromium: Any, out: Path, photograph: Path) -> None:
    page = chromium.new_page(viewport={"width": 420, "height": 760})
    with serve_web(out) as url:
        page.goto(url)
        page.wait_for_selector("html[data-ready]", state="attached")
        page.set_input_files("#file", photograph)
        page.wait_for_selector("#answers li")
        page.screenshot(path=PICTURES / "web-app.png")


if __name__ == "__main__":
    main()
