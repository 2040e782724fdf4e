"""The limit that `repair` keeps, by others' means: NNCF's accuracy control, and TensorFlow's converter alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, Figure, interval, row_of, worded
from edgecv import pipeline
from edgecv.answers import answers
from edgecv.artifact import artifact_of, digest_files
from edgecv.devices import Local, ask
from edgecv.evidence import made
from edgecv.listener import Listener
from edgecv.measure import Subject, compare_measurements, measure
from edgecv.photographs import tools
from edgecv.quiet import quiet
from edgecv.results import Row
from edgecv.runtimes import model_files
from edgecv.stages import Stages
from edgecv.stats import accuracy_drop
from edgecv.store import Step
from edgecv.target import Target
from edgecv.verify import top_k

OUT = ROOT / "runs" / "compression"
NETS = ("mobilenet_v3_small", "efficientnet_b0")
OURS = "int8-repaired"
# NNCF's is a share, ours in points: the same half of a point.
MAX_DROP = 0.005
# Files that differ by less than this are as fast: the same file measured twice may be as far apart.
AS_FAST = 0.98


@dataclass(frozen=True)
class Peer:
    """What another tool made: its name, its files, the pixels that it is fed, and how long it took."""

    name: str
    files: tuple[Path, ...]
    images: Path
    seconds: float


def peers(listener: Listener) -> Iterator[Figure]:
    """Our repaired int8 files beside theirs: the same float model, calibration images and splits."""
    for net in NETS:
        stages, targets = pipeline.prepare(
            ROOT / "models" / f"{net}.toml",
            targets=[ROOT / "targets" / f"{target}.toml" for target in pipeline.DEFAULT_TARGETS],
            out=OUT / net,
            listener=listener,
        )
        rows = pipeline.execute(stages, targets)  # that of the group int8, from the store
        with stages.store.in_use():
            for target, make in zip(targets, (_tensorflow, _nncf), strict=True):
                row = row_of(rows, OURS, target=target.name)
                yield from _beside(stages, target, row, peer=make(stages, target))


def _beside(stages: Stages, target: Target, row: Row, *, peer: Peer) -> Iterator[Figure]:
    name = f"{row.model}, {target.runtime}"
    if row.artifact is None or row.accuracy is None:
        print(f"left out: {name} beside {peer.name}: {row.status}")
        return
    files, labels = model_files(stages.out / row.artifact.path), stages.labels("test")
    own, _ = answers(stages, Local(target), artifact_of(files), files, label=f"{OURS} on {target.name}")
    theirs = _probabilities(target, peer)
    right, own_right, their_right = (top_k(found, labels, 1) for found in (stages.reference, own, theirs))
    drop, own_drop = accuracy_drop(right, their_right), accuracy_drop(right, own_right)
    how = f"{interval(drop.ci95)}, {drop.n} test images; ours {own_drop.drop_pp:.2f}, {interval(own_drop.ci95)}"
    yield Figure(f"{name}: drop of {peer.name}, pp", drop.drop_pp, "", how)
    apart = accuracy_drop(their_right, own_right)
    yield Figure(f"{name}: ours below {peer.name}, pp", apart.drop_pp, "<= 0", interval(apart.ci95))
    subjects = {"ours": Subject(files, Local(target)), "theirs": Subject(peer.files, Local(target))}
    found = measure(subjects, rounds=target.measure.processes, images=stages.images_path("test"))
    compared = compare_measurements(found["theirs"], found["ours"])
    assert compared is not None, found
    how = f"{worded(compared)}; {1 - AS_FAST:.0%} apart counts as alike"
    yield Figure(f"{name}: ours faster than {peer.name}, times", compared.ratio, f">= {AS_FAST}", how)
    ours = sum(step.seconds for step in row.steps if step.step.startswith("repair: "))
    yield Figure(f"{name}: time of {peer.name}, s", peer.seconds, "", f"ours: {ours:.0f} s, all trials of the repair")


def _probabilities(target: Target, peer: Peer) -> NDArray[np.float32]:
    outputs = peer.files[0].with_suffix(".npy")
    ask(Local(target), peer.files, do="predict", images=peer.images, outputs=outputs, patience=10.0)
    return np.asarray(np.load(outputs), np.float32)


def _nncf(stages: Stages, target: Target) -> Peer:
    """Quantize the float IR with NNCF's accuracy control, its defaults aside from the limit."""
    network = made(stages, Local(target), "float32").artifact
    (source, *_) = stages.place(network, "float32")

    def work(folder: Path) -> Any:
        import openvino as ov

        graph = ov.Core().read_model(source)
        begin = time.perf_counter()
        with quiet():
            graph = nncf_controlled(
                graph, calibration_images(stages), val=(stages.images("val"), stages.labels("val")), max_drop=MAX_DROP
            )
        seconds = time.perf_counter() - begin
        ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)
        return seconds

    files, seconds = _once(stages, "nncf", ("openvino", "nncf"), inputs=(network.digest,), work=work)
    return Peer("NNCF's accuracy control", files, stages.images_path("test"), seconds)


def nncf_controlled(
    graph: Any, calibration: NDArray[np.uint8], *, val: tuple[NDArray[np.uint8], NDArray[np.int64]], max_drop: float
) -> Any:
    """Quantize a float graph that takes uint8 `(1, H, W, 3)` so that its top-1 on `val` drops by `max_drop` at most."""
    import nncf

    def top1(compiled: Any, samples: Any) -> tuple[float, None]:
        hits = [int(np.argmax(compiled(image)[0])) == label for image, label in samples]
        return float(np.mean(hits)), None

    images, labels = val
    pairs = [(image[np.newaxis], int(label)) for image, label in zip(images, labels, strict=True)]
    return nncf.quantize_with_accuracy_control(
        graph,
        calibration_dataset=nncf.Dataset(list(calibration), lambda image: image[np.newaxis]),
        validation_dataset=nncf.Dataset(pairs, lambda pair: pair[0]),
        validation_fn=top1,
        max_drop=max_drop,
        subset_size=len(calibration),
    )


def _tensorflow(stages: Stages, target: Target) -> Peer:
    """Quantize by TensorFlow's converter, its defaults aside from int8 alone and uint8 in."""

    def work(folder: Path) -> Any:
        model, preprocess = stages.network(()), stages.recipe.preprocess
        begin = time.perf_counter()
        content = converted(model, preprocess, calibration_images(stages))
        (folder / "model.tflite").write_bytes(content)
        return time.perf_counter() - begin

    inputs = tuple(stages.trained.files.values())
    files, seconds = _once(stages, "tensorflow", ("tensorflow",), inputs=inputs, work=work)
    images = _requantized(files[0], np.asarray(stages.images("test")), stages.recipe.preprocess)
    path = files[0].with_name("images.npy")
    np.save(path, images, allow_pickle=False)
    return Peer("TensorFlow's converter", files, path, seconds)


def converted(model: Any, preprocess: Any, calibration: NDArray[np.uint8]) -> bytes:
    """Convert a Keras network, softmax behind it, to int8 TFLite; its uint8 input stands for the normalised one."""
    import tensorflow as tf

    from edgecv.export.exported import serving

    function, module = serving(model, preprocess, pixels=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    normalised = (calibration.astype(np.float32) - preprocess.mean) / np.float32(preprocess.scale)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in normalised)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    with quiet():
        return bytes(converter.convert())


def _requantized(file: Path, images: NDArray[np.uint8], preprocess: Any) -> NDArray[np.uint8]:
    """Give the images in the scale and zero point of the file's input: pixels only where calibration saw all values."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        scale, zero_point = Interpreter(str(file)).get_input_details()[0]["quantization"]
    normalised = (images.astype(np.float32) - preprocess.mean) / np.float32(preprocess.scale)
    return np.asarray(np.clip(np.rint(normalised / scale) + zero_point, 0, 255), np.uint8)


def calibration_images(stages: Stages) -> NDArray[np.uint8]:
    """Give the images that our own int8 files take their ranges from."""
    return np.asarray(stages.images("train")[stages.calibration])


def _once(
    stages: Stages,
    peer: str,
    packages: tuple[str, ...],
    *,
    inputs: tuple[str, ...],
    work: Callable[[Path], Any],
) -> tuple[tuple[Path, ...], float]:
    """Make a peer's files, or reuse them; return where they are, and the seconds that `work` counted."""
    splits = tuple(stages.loaded.files[key] for key in sorted(stages.loaded.files))
    params = {"calibration": stages.recipe.calibration.model_dump(), "max_drop": MAX_DROP}
    made_with = {**tools(*packages, code=()), "benchmark": digest_files(Path(__file__))}
    done = stages.do(Step(f"peer-{peer}", params, (*inputs, *splits), made_with), work)
    folder = stages.out / "peers" / peer
    for name, digest in done.files.items():
        stages.store.copy(digest, folder / name)
    main = next(name for name in done.files if not name.endswith(".bin"))
    return model_files(folder / main), float(done.value)
