"""A browser on this machine: a page runs the model by LiteRT.js, in WebAssembly or by WebGPU."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from edgecv import host, worker
from edgecv.artifact import digest_files
from edgecv.devices import chromium, litert_js
from edgecv.devices.device import Facts, Ran
from edgecv.devices.local import Local
from edgecv.devices.served import Content, Served, served
from edgecv.errors import DeviceError, MissingError
from edgecv.extras import install_command
from edgecv.isolate import Child, run_child

__all__ = ["Browser"]

PAGE = Path(__file__).parent / "page"
# The code that does a job there.
_OURS = (PAGE / "index.html", PAGE / "page.js")
NAMES = ("chromium", "chromium-browser", "google-chrome")
JOBS = ("describe", "predict", "bench")
FACTS_SECONDS = 60.0
TOGETHER = 64  # photographs in one request
# On Linux, Chromium offers WebGPU by these alone.
WEBGPU = ["--enable-unsafe-webgpu", "--enable-features=Vulkan"]
CHROMIUM = "python -m playwright install chromium (on Debian: sudo apt install chromium)"


class Browser(Local):
    """Runs each job in a page of a fresh Chromium; files stay where they are, and are served to that page alone."""

    def _asked(self) -> Facts:
        """Start the browser, and say what it is.

        Raises:
            MissingError: LiteRT.js, playwright, Chromium or WebGPU is not here.
            DeviceError: Chromium does not start.
        """
        litert_js.litert_js()
        if importlib.util.find_spec("playwright") is None:
            raise MissingError("playwright is not installed", fix=install_command("browser"))
        with served(_page()) as server:
            ran = self._opened(server, {"do": "facts"}, timeout_seconds=FACTS_SECONDS)
        if "missing" in ran.answer:
            got = ran.answer["missing"]
            raise MissingError("there is no Chromium", got=got, expected=" or ".join(NAMES), fix=CHROMIUM)
        if "version" not in ran.answer:
            got = ran.child.stderr.strip()[-300:]
            raise DeviceError(f"{self.target.name}: Chromium does not start: {ran.child.problem}", got=got)
        return self._read(ran.answer)

    def _read(self, answer: Mapping[str, Any]) -> Facts:
        """Turn the page's answer into facts; an adapter that is software is said to be."""
        versions = {"chromium": answer["version"], "@litertjs/core": litert_js.VERSION}
        code, adapter = digest_files(*_OURS), answer.get("adapter")
        if self.target.accelerator == "cpu":
            return Facts({**host.facts(), "accelerator": "wasm"}, versions, code=code)
        if adapter is None:
            fix = "plug in a GPU that Chromium knows: chrome://gpu lists what it found"
            raise MissingError("the browser has no WebGPU adapter", fix=fix)
        machine = {**host.facts(), "accelerator": f"webgpu: {adapter['vendor']} {adapter['architecture']}"}
        return Facts(machine, versions, timing="software-rendered" if adapter["software"] else "measured", code=code)

    def run(self, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Open the page, and have it do the job; it ends with its browser."""
        try:
            if job["do"] not in JOBS:
                raise worker.Refused("LiteRT.js does not show what is inside a model")
            worker.check_digests(job["files"])
        except worker.Refused as reason:
            return Ran(Child(0, "", "", 0.0, None), {"refused": str(reason)})
        images = np.load(job["images"], mmap_mode="r", allow_pickle=False) if job.get("images") else None
        about = None if images is None else {"count": len(images), "shape": images.shape[1:], "together": TOGETHER}
        files: dict[str, Content] = {**_page(), **_photographs(images), "model": Path(job["files"][0][0])}
        with served(files, places=("outputs",)) as server:
            work = {**job, "images": about}
            ran = self._opened(server, work, timeout_seconds=timeout_seconds, memory_bytes=job["memory_bytes"])
        if shape := ran.answer.get("output_shape"):
            np.save(job["outputs"], np.frombuffer(server.posted["outputs"], "<f4").reshape(shape), allow_pickle=False)
        told = job["do"] in ("describe", "predict") and "inputs" in ran.answer
        executed = {"executed_precision": self._precision(job, timeout_seconds)} if told else {}
        return Ran(ran.child, {**ran.answer, **executed})

    def _precision(self, job: Mapping[str, Any], timeout_seconds: float) -> str | None:
        """Read it as Python's LiteRT does, from the types of each operator's operands: LiteRT.js does not tell.

        These are the file's; WebAssembly has no floats of 16 bits that it could compute in instead. A GPU has.
        """
        if self.target.accelerator == "gpu":
            return None
        ran = super().run({**job, "do": "describe"}, timeout_seconds=timeout_seconds)
        found: str | None = ran.answer.get("executed_precision")
        return found

    def _opened(self, server: Served, work: Mapping[str, Any], *, timeout_seconds: float, memory_bytes: int = 0) -> Ran:
        """Open the page in a browser of its own, whose profile and whose processes do not outlive this."""
        named = filter(None, map(shutil.which, NAMES))
        with tempfile.TemporaryDirectory(prefix="edgecv-", ignore_cleanup_errors=True) as folder:
            path, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
            job = {
                "url": f"{server.url}index.html",
                "work": work,
                "executable": next(named, None),
                "flags": WEBGPU if self.target.accelerator == "gpu" else [],
                "sandbox": os.geteuid() != 0,  # which Chromium refuses to root
                "worker": worker.__file__,
                "memory_bytes": memory_bytes,
                "answer": str(answer),
            }
            path.write_text(json.dumps(job))
            try:
                argv = [*self.python(), chromium.__file__, str(path)]
                child = run_child(argv, timeout_seconds=timeout_seconds, env={"TMPDIR": folder})
            finally:
                _end(folder)
            with contextlib.suppress(OSError, ValueError):
                return Ran(child, json.loads(answer.read_text()))
            return Ran(child, {})


def _page() -> dict[str, Path]:
    """Give the files of the page, and those of LiteRT.js that it loads."""
    root = litert_js.litert_js()
    scripts = [f"{package}/dist/index.js" for package in ("core", "wasm-utils")]
    compiled = [f"core/wasm/{path.name}" for path in (root / "core/wasm").iterdir()]
    return {path.name: path for path in _OURS} | {name: root / name for name in scripts + compiled}


def _photographs(images: NDArray[np.uint8] | None) -> dict[str, Callable[[], bytes]]:
    """Give what sends photographs, some at once, by the number of the first."""
    if images is None:
        return {}
    return {
        f"images/{first}": functools.partial(_bytes, images, slice(first, first + TOGETHER))
        for first in range(0, len(images), TOGETHER)
    }


def _bytes(images: NDArray[np.uint8], some: slice) -> bytes:
    return bytes(images[some].tobytes())


def _end(folder: str) -> None:
    """End what is left of the browser whose profile lies in a folder; it ends by itself, but not at once."""
    running = psutil.process_iter(["cmdline"])
    left = [process for process in running if any(folder in part for part in process.info["cmdline"] or ())]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)
