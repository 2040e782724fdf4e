"""Open one page in a Chromium of its own: `python chromium.py JOB.json`. Needs playwright, nothing of edgecv.

The job is JSON:

    {"url": "http://127.0.0.1:...",     the page; its function `work` is given "work", and its result is the answer
     "work": {...},
     "executable": "/usr/bin/chromium", null: the one that playwright has fetched
     "flags": ["--enable-..."],
     "sandbox": true,
     "worker": "edgecv/worker.py",      which sets limits on a process
     "memory_bytes": 8000000000,        of each of the browser's processes
     "answer": "answer.json"}

The answer is what `work` gave, with the browser's `version` and `peak_rss_bytes` of the process that ran the page, or
`missing`: there is no such browser. Whoever ends this process ends the browser, which lives as long as its pipe to it.
"""

from __future__ import annotations

import json
import runpy
import sys
from typing import Any

__all__ = ["main"]

NO_TIMEOUT = 0.0  # whoever started this process ends it in time


def main(path: str) -> int:
    """Read the job, do it, write the answer."""
    with open(path) as file:
        job = json.load(file)
    runpy.run_path(job["worker"])["limit"](job["memory_bytes"], 0.0)
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as driver:
        try:
            answer = _answer(driver, job)
        except Error as error:
            if "Executable doesn't exist" not in error.message:
                print(error.message.splitlines()[0], file=sys.stderr)
                return 1
            answer = {"missing": error.message.splitlines()[0]}
    with open(job["answer"], "w") as file:
        json.dump(answer, file)
    return 0


def _answer(driver: Any, job: dict[str, Any]) -> dict[str, Any]:
    browser = driver.chromium.launch(
        executable_path=job["executable"], args=job["flags"], chromium_sandbox=job["sandbox"]
    )
    page = browser.new_page()
    page.set_default_timeout(NO_TIMEOUT)
    page.goto(job["url"])
    answer: dict[str, Any] = page.evaluate("job => work(job)", job["work"])
    answer.update(version=browser.version, peak_rss_bytes=_peak_of_pages())
    browser.close()
    return answer


def _peak_of_pages() -> int | None:
    """Give the largest resident set that a page's process had; None where the system does not tell."""
    import psutil

    peaks = [0]
    for process in psutil.Process().children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                with open(f"/proc/{process.pid}/status") as file:
                    peaks += [int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")]
        except (OSError, psutil.Error):
            continue  # it has ended
    return max(peaks) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
