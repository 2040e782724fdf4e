"""A phone over adb: Google's benchmark_model runs models there, measures them, and gives their answers."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL
from typing import Any

import numpy as np

from edgecv import runtimes
from edgecv.artifact import digest_files
from edgecv.devices import benchmark_model, figures
from edgecv.devices.benchmark_model import Call, Outputs, delegate, lacking
from edgecv.devices.bridge import Bridge
from edgecv.devices.device import Facts, Ran, suffix
from edgecv.devices.figures import not_all_on, read_figures, reason
from edgecv.devices.kept import Kept
from edgecv.devices.local import Local
from edgecv.devices.phone import HEAT, TELL, abis, heat, machine, parts
from edgecv.devices.tool import find_tool, processor
from edgecv.errors import DeviceError, MissingError
from edgecv.isolate import Child
from edgecv.target import Target

__all__ = ["Adb"]

FACTS_SECONDS = 60.0
IMAGES_A_COMMAND = 16  # what is run again where a connection breaks; they share the target's timeout
ANSWERED = Child(0, "", "", 0.0, None)
LEAST_BYTES = 1 << 20  # that adb may write: its server, where it has to start one, keeps a log within that
PIXELS, MAGIC = ".pixels", b"\x93NUMPY"  # an array is sent without its header


class Adb:
    """Runs benchmark_model on the device with the serial `target.host`, else $ANDROID_SERIAL, else on the only one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.bridge = Bridge(target.name, target.host)
        self.kept = Kept(self.bridge)
        self._known: Facts | None = None
        self._tool = ""
        self._there: dict[str, str] = {}
        self._sent: dict[str, tuple[Path, tuple[int, ...]]] = {}
        self._specs: dict[str, Ran] = {}
        self._outputs: dict[str, Outputs] = {}

    @property
    def lock(self) -> str:
        """Name the lock on the device, by its serial once it was reached."""
        return f"device-{hashlib.sha256((self.bridge.serial or self.target.name).encode()).hexdigest()[:16]}"

    def facts(self) -> Facts:
        """Reach the device, have the tool there, and say what it is.

        Raises:
            MissingError: there is no adb or no benchmark_model here, or the tool is too old or for another processor.
            ReachError: no device is attached, or it does not let this computer in.
        """
        if self._known is None:
            told = parts(self._asked(TELL))
            tool = find_tool(self.target)
            _fits(tool, abis(told))
            (self._tool,) = self.push((tool,))
            self._speaks()
            versions = {"benchmark_model": digest_files(tool)[:16]}
            code = digest_files(Path(__file__), Path(benchmark_model.__file__), Path(figures.__file__))
            self._known = Facts(machine(told), versions, timing="benchmark_model", code=code)
            self._warmed(told)
        return self._known

    def push(self, files: Sequence[Path], digests: Sequence[str] = ()) -> list[str]:
        """Send what is not there yet, under its digest; of an array its pixels."""
        return [
            self._pushed(file, digest)
            for file, digest in zip(files, digests or [digest_files(file) for file in files], strict=True)
        ]

    def place(self, here: Path) -> str:
        """Name a place in this use's own folder."""
        return f"{self.kept.own}/{uuid.uuid4().hex}"

    def run(self, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Run the tool there for "describe", "predict" or "bench"; it does nothing else, and says so."""
        if job["do"] not in ("describe", "predict", "bench"):
            return Ran(ANSWERED, {"refused": f"benchmark_model gives no {job['do']}"})
        specs = self._described(job)
        if "inputs" not in specs.answer:
            return specs
        call = self._call(job, specs.answer["inputs"])
        if job["do"] != "predict":
            ran = self._measured(call, job, timeout_seconds=timeout_seconds)
        elif call.images:
            ran = self._predicted(call, job)
            self._outputs[job["outputs"]] = Outputs(call.shape[0], specs.answer["outputs"])
        else:
            ran = Ran(ANSWERED, {"refused": f"takes {_shapes(specs.answer['inputs'])}, not one of these images"})
        shown = {"executed_precision": None, **{side: specs.answer[side] for side in ("inputs", "outputs")}}
        return replace(ran, answer=ran.answer if ran.child.problem else {**shown, **ran.answer})

    def pull(self, there: str, here: Path) -> None:
        """Bring the answers of a "predict" back as .npy."""
        outputs = self._outputs.pop(there)
        with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
            self.bridge.pull(there, Path(folder) / "outputs", file_bytes=max(outputs.size_bytes, LEAST_BYTES))
            answers = outputs.read((Path(folder) / "outputs").read_bytes())
        np.save(here, answers, allow_pickle=False)

    def release(self) -> None:
        """Remove this use's folder there."""
        self.kept.release()

    def _pushed(self, file: Path, digest: str) -> str:
        if digest not in self._there:
            with _content(file) as (content, ending, shape):
                there = self.kept.send(content, f"{digest}{ending}")
            self._there[digest], self._sent[there] = there, (file, shape)
        return self._there[digest]

    def _described(self, job: Mapping[str, Any]) -> Ran:
        """Read here what a model takes and gives, in a child process; nothing that it computes here is used."""
        ((there, digest), *_) = job["files"]
        if there not in self._specs:
            runtimes.require(self.target.runtime)
            files = [[str(self._sent[there][0].absolute()), digest]]
            asked = {**job, "do": "describe", "accelerator": "cpu", "files": files, "images": None}
            ran = Local(self.target).run(asked, timeout_seconds=self.target.measure.timeout_seconds)
            if "inputs" not in ran.answer:  # another time it may not crash or hang
                return ran
            self._specs[there] = ran
        return self._specs[there]

    def _call(self, job: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> Call:
        """Gather what the tool is called with: the images where the model takes one of them."""
        flags = delegate(job["accelerator"], precision=job["precision"], threads=job["threads"])
        call = Call(self._tool, job["files"][0][0], flags)
        if images := job["images"]:
            shape = self._sent[images][1]
            if _shapes(inputs) == f"uint8 {[1, *shape[1:]]}":
                return replace(call, images=images, shape=shape)
        return call

    def _measured(self, call: Call, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Have one process measure; "describe" is one that runs the model once."""
        if job["do"] == "describe":
            return self._watched(call.once(), job, timeout_seconds=timeout_seconds)
        times = {"seconds": job["seconds"], "warmup_seconds": job["warmup_seconds"], "most_seconds": timeout_seconds}
        ran = self._watched(call.timed(**times), job, timeout_seconds=timeout_seconds)
        if ran.child.problem or ran.answer:
            return ran
        found = read_figures(f"{ran.child.stdout}\n{ran.child.stderr}")
        times = {"init_ms": found.init_ms, "first_ms": found.first_ms, "latencies_ms": [found.figure_ms]}
        return replace(ran, answer={**times, "peak_rss_bytes": found.peak_rss_bytes})

    def _predicted(self, call: Call, job: Mapping[str, Any]) -> Ran:
        """Have a process for each image write its outputs, one file after the other."""
        timeout_seconds, places = self.target.measure.timeout_seconds, []
        for begin in range(0, call.shape[0], IMAGES_A_COMMAND):
            places.append(f"{job['outputs']}-{begin}")
            command = call.answered(begin, min(begin + IMAGES_A_COMMAND, call.shape[0]), places[-1])
            ran = self._watched(command, job, timeout_seconds=timeout_seconds)
            if ran.child.problem or ran.answer:
                return ran
        self.kept.done(f"cat {' '.join(places)} >{job['outputs']}")
        return Ran(ANSWERED, {})

    def _watched(self, command: str, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Run a command in this use's folder, killed where its connection ends before; then look at the heat.

        The answer is empty, or says that not all of the graph ran where it should.
        """
        limits = f"ulimit -c 0; ulimit -d {job['memory_bytes'] // 1024} 2>/dev/null"
        run = f"exec 3<&0; (cd {self.kept.own} || exit; {limits}; {command}) </dev/null 3<&- & worker=$!"
        # By `read`, which no process of its own does: adbd waits for all that hold its input, which is its output too.
        watch = "(read -r nothing; kill -9 $worker) <&3 >/dev/null 2>&1 & watch=$!"
        ending = f"wait $worker; code=$?; kill $watch; {HEAT}; exit $code"
        child = self.bridge.run(f"{run}; {watch}; {ending}", timeout_seconds=timeout_seconds)
        self._warmed(told := parts(child.stdout))
        child = replace(child, stdout=told[""], stderr=reason(child.stderr))
        if job["accelerator"] == "cpu":
            return Ran(child, {})
        left = not_all_on(job["accelerator"], f"{child.stdout}\n{child.stderr}", failed=bool(child.problem))
        return Ran(child, {"on_cpu": left} if left else {})

    def _warmed(self, told: Mapping[str, str]) -> None:
        """Keep what a device tells of its heat as a warning, once."""
        if self._known and (warning := heat(told)):
            lines = (*self._known.warnings, f"{self.target.name}: {warning}")
            self._known = replace(self._known, warnings=tuple(dict.fromkeys(lines)))

    def _asked(self, command: str) -> str:
        """Run a command that is answered at once, well or not, and give what it printed."""
        child = self.bridge.run(command, timeout_seconds=FACTS_SECONDS)
        if child.returncode == -SIGKILL:
            raise DeviceError(f"{self.target.name} {child.problem}", fix="restart it")
        return child.stdout

    def _speaks(self) -> None:
        """Have the tool list its flags: it runs there, it is benchmark_model, and can do what is needed."""
        said, target = self._asked(f"{self._tool} --help 2>&1").strip(), self.target
        if "usage:" not in said:
            fix = "take Google's benchmark_model for this device; docs/devices.md says where it is"
            raise DeviceError(f"{target.name} does not run benchmark_model", got=said[-300:], fix=fix)
        flags = delegate(target.accelerator, precision=target.precision, threads=target.threads)
        if missing := lacking(said, flags):
            fix = f"take a current benchmark_model: this one has no --{', no --'.join(missing)}"
            raise MissingError(f"{target.name}: benchmark_model lacks what is needed", fix=fix)


@contextlib.contextmanager
def _content(file: Path) -> Iterator[tuple[Path, str, tuple[int, ...]]]:
    """Give what is sent of a file, the suffix that it has there, and an array's shape."""
    with file.open("rb") as start:
        if start.read(len(MAGIC)) != MAGIC:  # the store's arrays have no suffix
            yield file, suffix(file), ()
            return
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    with tempfile.NamedTemporaryFile(prefix="edgecv-", suffix=PIXELS) as pixels:
        array.tofile(pixels.name)
        yield Path(pixels.name), PIXELS, array.shape


def _shapes(tensors: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{one['dtype']} {list(one['shape'])}" for one in tensors)


def _fits(tool: Path, known: set[str]) -> None:
    """Refuse a tool for another processor than those that a device knows."""
    if (names := processor(tool)) and not known & set(names):
        fix = f"take the benchmark_model for {', '.join(sorted(known - {''}))}"
        raise MissingError(f"{tool.name} is for another processor", got=", ".join(names), fix=fix)
