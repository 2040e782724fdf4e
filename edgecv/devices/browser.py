"""A browser on this machine: a page runs the model by LiteRT.js, in WebAssembly or by WebGPU."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
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

__all__ = ["Browser", "chromium_here"]

PAGE = Path(__file__).parent / "page"
_OURS = (PAGE / "index.html", PAGE / "page.js")
# The code that does a job there, and turns what the page tells into an answer.
_CODE = (*_OURS, Path(chromium.__file__), Path(__file__))
NAMES = ("chromium", "chromium-browser", "google-chrome")
JOBS = ("describe", "predict", "bench")
FACTS_SECONDS = 60.0
TOGETHER = 64  # photographs in one request
# On Linux, Chromium offers WebGPU by these alone.
WEBGPU = ["--enable-unsafe-webgpu", "--enable-features=Vulkan"]
CHROMIUM = "python -m playwright install chromium (on Debian: sudo apt install chromium)"


def chromium_here() -> str | None:
    """Find a Chromium of the system's; None where there is none, and playwright's own is taken."""
    return next(filter(None, map(shutil.which, NAMES)), None)


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
        code, adapter = digest_files(*_CODE), answer.get("adapter")
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
        if job["do"] == "bench" or "inputs" not in ran.answer:
            return ran
        told = self._told(job, timeout_seconds)
        if shape := ran.answer.get("output_shape"):
            spec = told.get("outputs", ran.answer["outputs"])[0]
            values = _left(server.posted.get("outputs", b""), shape)
            np.save(job["outputs"], worker.dequantized(values, spec), allow_pickle=False)
        return Ran(ran.child, {**ran.answer, "executed_precision": told.get("executed_precision")})

    def _told(self, job: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Have Python's LiteRT tell what LiteRT.js does not: the outputs' scales, and what the kernels compute in.

        That is read from the types of each operator's operands. These are the file's; WebAssembly has no floats of 16
        bits that it could compute in instead. A GPU has, so there it is not known.
        """
        ran = super().run({**job, "do": "describe", "accelerator": "cpu"}, timeout_seconds=timeout_seconds)
        return {**ran.answer, **({"executed_precision": None} if self.target.accelerator == "gpu" else {})}

    def _opened(self, server: Served, work: Mapping[str, Any], *, timeout_seconds: float, memory_bytes: int = 0) -> Ran:
        """Open the page in a browser of its own, whose profile and whose processes do not outlive this."""
        with tempfile.TemporaryDirectory(prefix="edgecv-", ignore_cleanup_errors=True) as folder:
            path, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
            job = {
                "url": f"{server.url}index.html",
                "work": work,
                "executable": chromium_here(),
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


def _left(content: bytes, shape: Sequence[int]) -> NDArray[np.float32]:
    """Read the float32 outputs that the page has left, of the shape that it tells.

    Raises:
        DeviceError: they are not as many.
    """
    if len(content) != (expected := 4 * math.prod(shape)):
        got, bytes_of = f"{len(content)} bytes", f"{expected} bytes, float32 {list(shape)}"
        raise DeviceError("the page left other outputs than it tells", got=got, expected=bytes_of)
    return np.frombuffer(content, "<f4").reshape(shape)


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
