"""What the page shows of why versions answer otherwise: their worst layers, accuracy by class, changed photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecv.report.cells import clean, figure, percent

__all__ = ["LAYER_COLUMNS", "changed", "classes", "layer_cells", "layers"]

LAYER_COLUMNS = {
    "layer": "layer",
    "own": "own dB",
    "channel": "median channel dB",
    "all": "with inherited dB",
    "float_range": "float range",
    "range": "file's range",
    "step": "step (zero at)",
    "saturation": "saturated %",
    "dead": "dead channels",
}
# Together they keep the page under 1.5 MB: a thumbnail takes about 3 kB.
_MOST_CLASSES, _MOST_THUMBNAILS, _LARGEST = 20, 96, 5_000
_JPEG = "data:image/jpeg;base64,"


def layers(measurements: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each int8 version's name, verdict, note and worst layers in texts, by `LAYER_COLUMNS`."""
    return [
        {
            "name": _name(one),
            "verdict": clean(one["verdict"]),
            "note": clean(one["note"]),
            "layers": [layer_cells(layer) for layer in one["layers"]],
        }
        for one in measurements.get("layers", ())
    ]


def layer_cells(one: Mapping[str, Any]) -> dict[str, str]:
    """A layer's texts by `LAYER_COLUMNS`, from what `LayerNoise.to_json` gave."""
    rounded = one["quantised"] is not None
    zero = "" if one["zero_point"] is None else f" ({one['zero_point']})"
    dead = f"{one['dead']} of {one['channels']}"
    if one["dead_float"] != one["dead"]:
        dead += f", in float {one['dead_float']}"
    return {
        "layer": clean(one["layer"]),
        "own": f"{one['own_snr_db']:.0f}",
        "channel": f"{one['channel_snr_db']:.0f}",
        "all": f"{one['snr_db']:.0f}",
        "float_range": _range(one["float_range"]),
        "range": _range(one["quantised"]) if rounded else "-",
        "step": figure(one["scale"]) + zero if rounded else "-",
        "saturation": percent(one["saturation"]) if rounded else "-",
        "dead": dead,
    }


def classes(measurements: Mapping[str, Any]) -> dict[str, Any] | None:
    """Accuracy by class: `heads` of the columns, `rows` of a class name and texts, and how many are left out.

    Of many classes those are shown that lost most in any version.
    """
    found = measurements.get("classes")
    if not found or not found["versions"]:
        return None
    counts, versions = found["photographs"], found["versions"]
    drops = [max(found["float"][i] - one["hits"][i] for one in versions) / max(n, 1) for i, n in enumerate(counts)]
    places = sorted(range(len(counts)), key=lambda place: -drops[place])[:_MOST_CLASSES]
    columns = [found["float"], *(one["hits"] for one in versions)]
    rows = [
        (clean(found["names"][place]), [f"{counts[place]:,}", *(_share(one[place], counts[place]) for one in columns)])
        for place in (sorted(places) if len(places) == len(counts) else places)
    ]
    heads = ["photographs", "float Keras", *(_name(one) for one in versions)]
    return {"heads": heads, "rows": rows, "left_out": len(counts) - len(rows)}


def changed(measurements: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each version's name, how many photographs it answers otherwise, and some of them with texts."""
    found = measurements.get("changed", ())
    most = max(1, _MOST_THUMBNAILS // max(len(found), 1))
    return [{"name": _name(one), "count": one["count"], "shown": _shown(one["shown"][:most])} for one in found]


def _shown(photographs: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Texts and thumbnails; only what is a JPEG in the page itself, and small."""
    return [
        {
            "image": one["image"],
            "label": clean(one["label"]),
            "float": clean(one["float"]),
            "version": clean(one["version"]),
        }
        for one in photographs
        if one["image"].startswith(_JPEG) and len(one["image"]) <= _LARGEST
    ]


def _name(one: Mapping[str, str]) -> str:
    return f"{clean(one['variant'])} on {clean(one['target'])}"


def _range(ends: Sequence[float]) -> str:
    return " to ".join(f"-{figure(-end)}" if end < 0 else figure(end) for end in ends)


def _share(hits: int, count: int) -> str:
    return percent(hits / count) if count else "-"
