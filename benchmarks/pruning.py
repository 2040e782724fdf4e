"""Channels removed beside channels never there, and zeros: what either buys in latency and bytes, measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, Figure, interval, worded
from benchmarks.peers import OUT
from edgecv import host, pipeline
from edgecv.answers import answers
from edgecv.artifact import gzip_size
from edgecv.devices import Local
from edgecv.export.sparse_kernels import dense_because, zeros_of_pointwise
from edgecv.listener import Listener
from edgecv.measure import Subject, compare_measurements, measure
from edgecv.recipe import Recipe, load_recipe
from edgecv.stages import Stages
from edgecv.stats import accuracy_drop
from edgecv.target import Target
from edgecv.verify import top_k

Hits = NDArray[np.bool_]

# `width`: from random weights, so that both start alike; this many epochs in all for each network.
EPOCHS, RECOVERY = 30, 10
SIZE, SEEDS = 96, (0, 1, 2)
# As in the fast recipe. By multiples of 8, at as many multiply-accumulates the slimmed network was as accurate as the
# narrow one and 0.96 times as fast; at three quarters of them 0.5 points less accurate and 1.21 times as fast.
MULTIPLE = 16
# Of the narrow network's multiply-accumulates: as many, where the accuracies are compared, and fewer.
SHARES = (1.0, 0.75)

# `sparse`: XNNPACK's sparse kernels take images of a multiple of 32 plus 1.
ODD_SIZE, SPARSITY = 161, 0.8


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    """Return the recipe with some values of some sections, `train={"epochs": 3}`, or all `variants`, replaced."""
    values = recipe.model_dump()
    for name, section in sections.items():
        values[name] = section if name == "variants" else {**values[name], **section}
    return Recipe.model_validate(values)


def width(listener: Listener) -> Iterator[Figure]:
    """A network slimmed beside one that was narrow from the start: the same epochs, images and first weights' seed."""
    hits: dict[str, list[Hits]] = {}
    subjects: dict[str, Subject] = {}
    macs: dict[str, int] = {}
    for seed in SEEDS:
        narrow = stages_of(narrow_recipe(seed), f"width-narrow-{seed}", listener)
        full = stages_of(wide_recipe(seed, keep=0.5), f"width-wide-{seed}", listener)
        whole, small = full.trained.value["macs"], narrow.trained.value["macs"]
        versions = {"narrow": (narrow, "int8")}
        for share in SHARES:
            slim = stages_of(wide_recipe(seed, keep=share * small / whole), f"width-slim-{share:g}-{seed}", listener)
            versions[f"slim to {share:.0%}"] = (slim, "slim-int8")
        for name, (stages, variant) in versions.items():
            with stages.store.in_use():
                files, right = judged(stages, variant)
            hits.setdefault(name, []).append(right)
            if seed == SEEDS[0]:
                subjects[name] = Subject(files, Local(litert()))
                macs[name] = stages.shaped(stages.shaping(variant)).value["macs"]
    images = narrow.images_path("test")
    found = measure(subjects, rounds=litert().measure.processes, images=images)
    for share in SHARES:
        name = f"slim to {share:.0%}"
        label = f"mobilenet_v2, {name} of the MACs of width 0.5"
        gain = accuracy_drop(np.concatenate(hits[name]), np.concatenate(hits["narrow"]))
        top1 = " and ".join(f"{np.mean(hits[one]):.4f}" for one in (name, "narrow"))
        how = f"{interval(gain.ci95)}, top-1 {top1}, int8 on LiteRT, {len(SEEDS)} seeds"
        yield Figure(f"{label}: more accurate, pp", gain.drop_pp, ">= 0", how)
        compared = compare_measurements(found["narrow"], found[name])
        assert compared is not None, found
        counted = f"{macs[name] / 1e6:.1f} and {macs['narrow'] / 1e6:.1f} M multiply-accumulates"
        # At as many multiply-accumulates latencies are about alike, and nothing is asked.
        asked = ">= 1" if share < 1.0 else ""
        yield Figure(f"{label}: faster, times", compared.ratio, asked, f"{worded(compared)}, {counted}")


def narrow_recipe(seed: int) -> Recipe:
    """Half as wide, all epochs on the labels."""
    variants = {"float32": (), "int8": ("int8",)}
    return changed(from_scratch(seed, EPOCHS), model={"width": 0.5}, variants=variants)


def wide_recipe(seed: int, *, keep: float) -> Recipe:
    """At its full width, then slimmed, with the epochs that are left on the whole network's answers."""
    variants = {"float32": (), "slim-int8": ("slim", "int8")}
    slim = {"keep": keep, "multiple": MULTIPLE, "epochs": RECOVERY}
    return changed(from_scratch(seed, EPOCHS - RECOVERY), model={"width": 1.0}, slim=slim, variants=variants)


def from_scratch(seed: int, epochs: int) -> Recipe:
    """MobileNetV2 at a small size, trained from random weights drawn from the seed."""
    recipe = load_recipe(ROOT / "models" / "separable_cnn.toml")  # how a net is trained from random weights
    train = {"epochs": epochs, "learning_rate": 3e-3, "seed": seed}
    return changed(recipe, model={"net": "mobilenet_v2"}, preprocess={"size": SIZE}, train=train)


def judged(stages: Stages, variant: str) -> tuple[tuple[Path, ...], Hits]:
    """Build a variant's TFLite file; return where it is, and which test images it has right in LiteRT."""
    artifact = stages.exported(variant, "tflite")
    files = stages.place(artifact, variant)
    found, _ = answers(stages, Local(litert()), artifact, files, label=variant)
    return files, top_k(found, stages.labels("test"), 1)


def sparse(listener: Listener) -> Iterator[Figure]:
    """The demo's network with zeros, in a file that leaves them out, beside the dense one."""
    recipe = changed(
        load_recipe(ROOT / "models" / "efficientnet_lite0.toml"),
        preprocess={"size": ODD_SIZE},
        sparse={"sparsity": SPARSITY},
        variants={"float32": (), "sparse": ("sparse",)},
    )
    stages = stages_of(recipe, "sparse", listener)
    with stages.store.in_use():
        (dense, before), (zeros, after) = judged(stages, "float32"), judged(stages, "sparse")
        network = stages.plain(("sparse",))
    drop = accuracy_drop(before, after)
    name, share = f"efficientnet_lite0, {SPARSITY:.0%} zeros", zeros_of_pointwise(network)
    how = f"{interval(drop.ci95)}, {drop.n} test images; {share:.1%} of the 1x1 convolutions' weights are zero"
    yield Figure(f"{name}: drop, pp", drop.drop_pp, "", how)
    for what, size in (("file", lambda path: path.stat().st_size), ("gzip", gzip_size)):
        ours, whole = size(zeros[0]), size(dense[0])
        yield Figure(f"{name}: {what} / dense {what}", ours / whole, "", f"{ours:,} of {whole:,} bytes")
    yield _latency(name, dense, zeros, stages, dense_because(network))


def _latency(name: str, dense: tuple[Path, ...], zeros: tuple[Path, ...], stages: Stages, reason: str | None) -> Figure:
    subjects = {"dense": Subject(dense, Local(litert())), "sparse": Subject(zeros, Local(litert()))}
    found = measure(subjects, rounds=litert().measure.processes, images=stages.images_path("test"))
    flags = "AVX" if "avx" in str(host.facts()["flags"]) else "no AVX"
    why = reason or f"fit for sparse kernels, which XNNPACK has for CPUs without AVX; this one has {flags}"
    compared = compare_measurements(found["dense"], found["sparse"])
    assert compared is not None, found
    return Figure(f"{name}: faster than dense, times", compared.ratio, "", f"{worded(compared)}; {why}")


def litert() -> Target:
    """One thread of this machine's CPU."""
    return Target(name="linux-litert", runtime="litert")


def stages_of(recipe: Recipe, name: str, listener: Listener) -> Stages:
    """Prepare a recipe that is no file; `name` is the folder of its results."""
    stages, _ = pipeline.prepare(recipe, out=OUT / name, listener=listener)
    return stages
