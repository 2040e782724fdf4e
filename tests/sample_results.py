"""A realistic run: four LiteRT and four OpenVINO versions; one fails, one crashed, one has too few images."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import numpy as np

from edgecv.results import Results

__all__ = ["sample", "sample_causes", "sample_measurements"]

# variant, target, ran in, MB, accuracy, drop, drop interval, changed, p50, ratio, interval, answer, peak MB, status
_ROWS: list[tuple[Any, ...]] = [
    ("float32", "linux-litert", "float32", 13.55, 0.893, 0.0, (0.0, 0.0), 0, 38.2, None, None, None, 96, "pass"),
    ("float16", "linux-litert", "float32", 6.82, 0.893, 0.0, (-0.2, 0.2), 1, 38.4, 0.99, (0.97, 1.02),
     "can't tell: the interval contains 1", 103, "pass"),
    ("int8", "linux-litert", "int8", 3.79, 0.8896, 0.34, (-0.6, 1.3), 14, 18.3, 2.09, (2.03, 2.16), "faster", 61,
     "pass"),
    ("int8-dynamic", "linux-litert", "int8", 3.91, 0.8706, 2.24, (0.9, 3.6), 33, 49.1, 0.78, (0.75, 0.81), "slower", 72,
     "fail: drop 2.2 pp [0.9, 3.6], limit 2.0"),
    ("float32", "linux-openvino", "float32", 13.61, 0.893, 0.0, (0.0, 0.0), 0, 12.9, None, None, None, 181, "pass"),
    ("float16", "linux-openvino", "float32", 6.89, 0.893, 0.0, (-0.2, 0.2), 1, 12.8, 1.01, (0.98, 1.03),
     "can't tell: the interval contains 1", 176, "pass"),
    ("int8", "linux-openvino", "int8", 3.95, 0.8845, 0.85, (-0.4, 2.1), 22, 5.31, 2.43, (2.37, 2.5), "faster", 158,
     "can't tell: 1,200 more images"),
    ("slim-int8", "linux-openvino", None, 2.7, None, None, None, None, None, None, None, None, None,
     "refused: the runtime was killed by signal 11 (SIGSEGV) while it compiled the model"),
]  # fmt: skip


_STEPS = [
    {
        "step": "slim", "seconds": 17.3, "accuracy": (0.893, 0.7634), "params": 446_418, "macs": 35_180_048,
        "left": [{"layer": "logits", "reason": "the network's output"}],
    },
    {"step": "distill", "seconds": 311.0, "accuracy": (0.7634, 0.889), "params": 446_418, "macs": 35_180_048},
    {
        "step": "repair: percentile ranges", "seconds": 21.0, "accuracy": (0.87, 0.885), "params": 446_418,
        "macs": 35_180_048, "note": "percentile ranges: drop 0.40 pp on validation (kept)",
    },
]  # fmt: skip


def _row(fields: tuple[Any, ...]) -> dict[str, Any]:
    (variant, target, ran_in, size, accuracy, drop, drop_ci, changed, p50, ratio, ratio_ci, answer, peak, status) = (
        fields
    )
    runtime = target.removeprefix("linux-")
    suffix = "tflite" if runtime == "litert" else "xml"
    half = 0.0216
    return {
        "model": "efficientnet_lite0",
        "variant": variant,
        "target": target,
        "runtime": runtime,
        "format": "tflite" if runtime == "litert" else "openvino",
        "precision": variant.removeprefix("slim-").removesuffix("-dynamic"),
        "executed_precision": ran_in,
        "artifact": {
            "path": f"models/efficientnet_lite0-{variant}.{suffix}",
            "sha256": hashlib.sha256(f"{variant} {target}".encode()).hexdigest(),
            "size_bytes": round(size * 1e6),
            "gzip_bytes": round(size * 0.91e6),
        },
        "params": 3_415_650,
        "macs": 385_000_000,
        "accuracy": accuracy
        and {
            "metric": "top1", "value": accuracy, "n": 788, "ci95": (accuracy - half, accuracy + half),
            "drop_pp": drop, "drop_ci95": drop_ci, "changed_predictions": changed,
        },
        "parity": accuracy and {"reference": "keras float32", "max_abs": 0.031, "top1_agreement": 1 - changed / 788},
        "latency_ms": p50
        and {
            "init": p50 * 0.7, "first": p50 * 1.4, "p10": p50 * 0.98, "p50": p50, "p90": p50 * 1.05, "p99": None,
            "samples": int(12_000 / p50), "processes": 12,
        },
        "speedup": ratio and {"baseline": "float32", "ratio": ratio, "ci95": ratio_ci, "answer": answer},
        "memory": peak and {"peak_rss_bytes": peak * 1_000_000},
        "skipped": [{"layer": "predictions/Softmax", "reason": "softmax stays in float32: its output feeds no layer"}]
        if variant == "int8"
        else [],
        "steps": _STEPS if variant == "slim-int8" else [],
        "emulated": False,
        "status": status,
    }  # fmt: skip


def sample(**changes: Any) -> Results:
    """The run; `changes` replace fields of every row."""
    host = {
        "cpu": "AMD EPYC 9R14 (2 of 96 cores)",
        "cores": 2,
        "memory_bytes": 8_253_456_384,
        "flags": ["avx2", "avx512f", "avx512_vnni", "avx512_bf16"],
        "system": "Debian GNU/Linux 12, Linux 6.1, x86_64",
        "python": "3.11.2",
        "packages": {"ai-edge-litert": "2.3.1", "openvino": "2026.4.0", "tensorflow": "2.21.0"},
        "warnings": ["spread of p50 between processes is 6 % of the median (limit 5 %): close other programs"],
    }
    return Results.model_validate_json(
        json.dumps(
            {
                "schema": 1,
                "edgecv": "0.1.0",
                "recipe": {"name": "efficientnet_lite0", "sha256": hashlib.sha256(b"recipe").hexdigest()},
                "host": host,
                "rows": [_row(fields) | changes for fields in _ROWS],
            }
        )
    )


def sample_measurements() -> dict[str, Any]:
    """Raw latencies of the run's 12 processes a version, right-skewed as real ones are."""
    chance = random.Random(7)
    rows = []
    for variant, target, *_, p50 in (fields[:9] for fields in _ROWS):
        if p50:
            processes = []
            for number in range(12):
                pace = p50 * chance.lognormvariate(0, 0.018)
                latencies = [pace * (0.985 + chance.expovariate(40)) for _ in range(int(1000 / p50))]
                latencies[-1] *= 1.4
                processes.append(
                    {"round": number, "init_ms": p50 * 0.7, "first_ms": p50 * 1.4, "latencies_ms": latencies,
                     "peak_rss_bytes": 90_000_000}
                )  # fmt: skip
            rows.append({"variant": variant, "target": target, "processes": processes})
    return {"rows": rows}


def sample_causes() -> dict[str, Any]:
    """What measurements.json holds of the int8 versions' layers, of the classes, and of changed answers."""
    from edgecv.causes import thumbnail

    shades = np.linspace(0, 255, 80 * 80 * 3).reshape(80, 80, 3).astype(np.uint8)
    photograph = {"image": thumbnail(shades), "label": "functional", "float": "functional", "version": "defective"}
    layer = {
        "parts": ["block5_expand_conv"], "snr_db": 17.2, "inherited_snr_db": 24.0, "channel_snr_db": 28.4,
        "float_range": [0.0, 6.0], "overshoot": 0.0, "quantised": [0.0, 4.31], "scale": 0.0169, "zero_point": -128,
        "saturation": 0.0134, "beyond": 0.0121, "channels": 240, "dead": 3, "dead_float": 1,
    }  # fmt: skip
    layers = [{**layer, "layer": f"block{number}_expand_relu", "own_snr_db": 18.0 + number} for number in range(10)]
    versions = [{"variant": fields[0], "target": fields[1]} for fields in _ROWS if fields[4]]
    return {
        "classes": {
            "names": ["defective", "functional"],
            "photographs": [336, 452],
            "float": [280, 424],
            "versions": [{**one, "hits": [278 - place, 421 - place]} for place, one in enumerate(versions)],
        },
        "layers": [
            {**one, "verdict": "block0_expand_relu is the first layer apart", "layers": layers, "note": "values inside"}
            for one in versions
            if one["variant"] == "int8"
        ],
        "changed": [
            {**one, "count": 7 * place, "shown": [photograph] * min(7 * place, 12)}
            for place, one in enumerate(versions)
        ],
    }
