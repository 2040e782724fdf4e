"""How far each layer of a file is from the float network's: the arithmetic, and the words for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import UsageError
from edgecv.explain.graph import Quantised

__all__ = ["LIMIT_DB", "LayerNoise", "Tally", "explain", "snr_db", "verdict", "worst"]

# Beyond float32's own rounding (24 bits are 144 dB): equal values, or all noise, have a figure too.
LIMIT_DB = 150.0
# A layer stands apart whose ratio in dB is half of the median layer's, and at least this much lower. Layers of sound
# int8 files have 35 to 45 dB, and the odd one 25; those of float files 130.
APART_DB = 10.0
# So does one with values this far beyond what the float layer can give: its activation is another.
APART_OVERSHOOT = 0.25
# A share of values beyond the range that is worth a word.
NAMED_SHARE = 0.001

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]


@dataclass(frozen=True)
class LayerNoise:
    """What became of one layer in a file; ratios of signal to noise in dB, shares in [0, 1].

    `parts`: the Keras layers that the file computes in one, of which `layer` is the last.

    `snr_db`: of all its noise. `inherited_snr_db`: of the noise that its inputs bring. `own_snr_db`: of the noise that
    it adds itself, to what the float layer gives for the file's own inputs; `channel_snr_db`: the same for the median
    channel, which one loud channel does not hide.

    `float_range`: smallest and largest value in the float network. `overshoot`: how far the file's values go beyond
    those that the float layer gives for the same inputs, as a share of their span. `quantised`: the range that the
    file has for it, None where it is not rounded. `saturation`: share of the file's values at an end of that range
    beyond which the float network has values; `beyond`: share of those values.

    `dead`: channels that never change, in the file; `dead_float`: in the float network; both of `channels`.
    """

    layer: str
    parts: tuple[str, ...]
    snr_db: float
    inherited_snr_db: float
    own_snr_db: float
    channel_snr_db: float
    float_range: tuple[float, float]
    overshoot: float
    quantised: Quantised | None
    saturation: float
    beyond: float
    channels: int
    dead: int
    dead_float: int

    @property
    def apart_db(self) -> float:
        """The figure that layers are ranked by: the noise it adds, by the worse of the two ways to see it."""
        return min(self.own_snr_db, self.channel_snr_db)

    def to_json(self) -> dict[str, Any]:
        """Give the figures as JSON has them: of ranges that differ by channel, the outermost ends."""
        values, quantised = dataclasses.asdict(self), self.quantised
        ends = quantised and [min(quantised.low), max(quantised.high)]
        scale, zero_point = (quantised.scale, quantised.zero_point) if quantised else (None, None)
        return {**values, "quantised": ends, "scale": scale, "zero_point": zero_point}


def snr_db(signal: float, noise: float) -> float:
    """Ratio of two powers in dB, within +-150; equal to the limit without noise, also where there is no signal.

    >>> snr_db(100.0, 1.0)
    20.0
    """
    if noise <= 0.0:
        return LIMIT_DB
    if not math.isfinite(noise) or not signal > 0.0:
        return -LIMIT_DB
    return float(np.clip(10 * (math.log10(signal) - math.log10(noise)), -LIMIT_DB, LIMIT_DB))


class Tally:
    """Sums over one layer's values, to which photographs are added a few at a time."""

    def __init__(self, channels: int, quantised: Quantised | None) -> None:
        self._quantised = quantised
        self._powers: Sums = np.zeros((4, channels))
        self._inherited = 0.0
        self._lowest: Floats = np.full((3, channels), np.inf, np.float32)
        self._highest: Floats = np.full((3, channels), -np.inf, np.float32)
        self._ends, self._beyond = np.zeros(2), np.zeros(2)
        self._count = 0

    def add(self, got: Floats, reference: Floats, expected: Floats) -> None:
        """Add values `(n, ..., channels)`: the file's, the float network's, the float layer's for the file's inputs."""
        with np.errstate(invalid="ignore", over="ignore"):  # a broken file gives what is no number
            self._add(*(values.reshape(-1, values.shape[-1]) for values in (got, reference, expected)))

    def _add(self, file: Floats, float_: Floats, own: Floats) -> None:
        for place, values in enumerate((float_, float_ - file, own, own - file)):
            self._powers[place] += np.sum(np.square(values), axis=0, dtype=np.float64)
        self._inherited += float(np.sum(np.square(float_ - own), dtype=np.float64))
        for place, values in enumerate((file, float_, own)):
            np.minimum(self._lowest[place], values.min(axis=0), out=self._lowest[place])
            np.maximum(self._highest[place], values.max(axis=0), out=self._highest[place])
        self._count += file.size
        if self._quantised is not None:
            low, high = (np.array(end, np.float32) for end in (self._quantised.low, self._quantised.high))
            half = np.float32(self._quantised.scale / 2)
            self._ends += [np.sum(file < low + half / 2), np.sum(file > high - half / 2)]
            self._beyond += [np.sum(float_ < low - half), np.sum(float_ > high + half)]

    def result(self, layer: str, parts: tuple[str, ...] = ()) -> LayerNoise:
        """Give the figures of all that was added."""
        signal, noise, own_signal, own_noise = self._powers.sum(axis=1)
        pairs = [(s, n) for s, n in zip(self._powers[2], self._powers[3], strict=True) if s > 0 or n > 0]
        median = float(np.median([snr_db(s, n) for s, n in pairs])) if pairs else LIMIT_DB
        dead, dead_float, _ = (int(n) for n in np.sum(self._lowest == self._highest, axis=1))
        lowest, highest = (np.nan_to_num(ends).tolist() for ends in (self._lowest.min(1), self._highest.max(1)))
        return LayerNoise(
            layer=layer,
            parts=parts or (layer,),
            snr_db=snr_db(signal, noise),
            inherited_snr_db=snr_db(signal, self._inherited),
            own_snr_db=snr_db(own_signal, own_noise),
            channel_snr_db=median,
            float_range=(lowest[1], highest[1]),
            overshoot=_overshoot((lowest[0], highest[0]), (lowest[2], highest[2])),
            quantised=self._quantised,
            saturation=float(self._ends[self._beyond > 0].sum()) / self._count,
            beyond=float(self._beyond.sum()) / self._count,
            channels=self._powers.shape[1],
            dead=dead,
            dead_float=dead_float,
        )


def _overshoot(got: tuple[float, float], allowed: tuple[float, float]) -> float:
    """Tell how far a range goes beyond another, as a share of that one's span."""
    over, span = max(allowed[0] - got[0], got[1] - allowed[1], 0.0), allowed[1] - allowed[0]
    return over / span if span > 0 else 0.0


def explain(
    file: Mapping[str, Floats],
    reference: Mapping[str, Floats],
    expected: Mapping[str, Floats],
    *,
    quantised: Mapping[str, Quantised] | None = None,
) -> tuple[LayerNoise, ...]:
    """Compare layers by name, in the order of `file`; values float32 `(n, ..., channels)`.

    `file`: what the file holds for each. `reference`: what the float network gives. `expected`: what its layer gives
    for the file's own inputs. `quantised`: the ranges of the layers that are rounded.

    Raises:
        UsageError: the three do not have the same layers in the same shapes.
    """
    found = []
    for layer, values in file.items():
        shapes = [side[layer].shape if layer in side else None for side in (file, reference, expected)]
        if len(set(shapes)) > 1:
            raise UsageError(f"can't compare layer {layer}", got=str(shapes), expected="three equal shapes")
        tally = Tally(values.shape[-1], (quantised or {}).get(layer))
        tally.add(values, reference[layer], expected[layer])
        found.append(tally.result(layer))
    return tuple(found)


def worst(layers: Sequence[LayerNoise], count: int | None = None) -> tuple[LayerNoise, ...]:
    """Rank layers by the noise they add, the most first; `count` of them, or all."""
    return tuple(sorted(layers, key=lambda one: one.apart_db)[:count])


def verdict(layers: Sequence[LayerNoise]) -> str:
    """Name in one line the first layer that stands apart, or the one that adds most noise where none does.

    `layers` in the network's order.
    """
    usual = float(np.median([one.apart_db for one in layers]))
    limit = min(usual / 2, usual - APART_DB)
    apart = [one for one in layers if one.apart_db < limit or one.overshoot > APART_OVERSHOOT]
    if apart:
        others = f", and {len(apart) - 1} more after it" if len(apart) > 1 else ""
        said = f"{apart[0].layer} is the first layer apart: {_reason(apart[0], usual)}{others}"
    else:
        most = worst(layers, 1)[0]
        said = f"no layer stands apart: most noise is {most.layer}'s, {_reason(most, usual)}"
    if dead := [one for one in layers if one.dead_float == one.channels > 1]:
        first = f"none of its {dead[0].channels} channels ever changes"
        return f"{dead[0].layer} is dead in the float network already: {first}; {said}"
    return said


def _reason(one: LayerNoise, usual: float) -> str:
    """Word what is wrong with a layer: how much noise it adds, and what may explain it."""
    where = " in the median channel" if one.channel_snr_db < one.own_snr_db else ""
    causes = [f"signal {one.apart_db:.0f} dB above the noise it adds{where} ({usual:.0f} dB usually)"]
    if one.dead > one.dead_float:
        causes.append(f"{one.dead} of {one.channels} channels dead ({one.dead_float} in the float network)")
    if one.overshoot > APART_OVERSHOOT:
        causes.append(f"values {one.overshoot:.0%} beyond the float layer's range")
    if one.beyond > NAMED_SHARE:
        causes.append(f"{one.beyond:.1%} of the float values beyond the file's range")
    return ", ".join(causes)
