"""A refiner's network for other engines: written, held against torch, described beside it.

What is exported is what the network *adds*, never the refined picture: it is added to the exact
pixels outside, where no rounding of the graph can touch them, and the tone step follows there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simgan_aug import checkpoint, exported
from simgan_aug.backends import Backend, backend_of
from simgan_aug.backends.change import Change, ChangeBackend, export_onnx, export_torch
from simgan_aug.backends.graph import Graph, names_of
from simgan_aug.backends.openvino import GRAPH, OpenVINOBackend, model_of, openvino
from simgan_aug.backends.quantized import quantized
from simgan_aug.checkpoint import Checkpoint
from simgan_aug.errors import ConfigError, ExportError
from simgan_aug.exported import Exported, Parity
from simgan_aug.files import sha256_of, write_atomically
from simgan_aug.folders import list_images
from simgan_aug.imagefile import decode_image
from simgan_aug.inference import ImageRefiner

FORMATS = ("onnx", "openvino", "torch-export")
PRECISIONS = ("fp32", "bf16", "int8")

LIMITS = {"fp32": (1.0, 1.0), "bf16": (2.0, 0.25), "int8": (3.0, 0.15)}
"""Grey levels that a graph may be apart from torch in fp32, at most and in the mean. In bf16 it is
two, .11 to .16 in the mean, where a refiner turns colours into others; one, .03, where it does not.
"""

_WAYS_OUT = {
    "fp32": "another engine, or another version of it, may do better",
    "bf16": "take fp32",
    "int8": "take bf16, or calibrate on more images",
}
"""What to do about a graph that is further apart."""

IMAGES = 64
"""Images of a folder that are looked at, evenly spaced."""

Array = np.ndarray[Any, Any]


def export(
    refiner: str | os.PathLike[str],
    to: str,
    out: Path,
    *,
    size: tuple[int, int] | None = None,
    precision: str = "fp32",
    images: Path | None = None,
    checked: bool = True,
) -> Exported:
    """Write a refiner's network into a folder, for another engine.

    Args:
        refiner: path of a refiner file, or the name under which a plugin ships one.
        to: "openvino", a graph of the network's core in any size, for the backend of the same name;
            "onnx" or "torch-export", a graph of one size that maps images to what is added to them.
        out: a folder, new or of an earlier export.
        size: width and height in px that the graph takes; None: any, and 640x480 for a form that
            has to have one.
        precision: "fp32"; for openvino also "bf16", or "int8", quantized after training.
        images: folder of the user's synthetic images, to quantize by and to hold the result
            against torch; None: noise, which is not enough for int8.
        checked: refuse a graph that is too far from torch; not, where only its speed counts.

    Raises:
        ConfigError: impossible settings.
        CheckpointError: the refiner cannot be used.
        DependencyError: a library that this needs is not installed.
        ExportError: the graph's images are too far from torch's; nothing is written.
        OutputError: the folder cannot be written.
    """
    _check(to, precision, images, out, size)
    file = checkpoint.locate(refiner)
    loaded = checkpoint.load(file)
    size = size or (None if to == "openvino" and Graph(loaded.network).is_staged else (640, 480))
    samples = _samples(images, loaded.channels, size)
    with tempfile.TemporaryDirectory(prefix="simgan-export-") as scratch:
        made, backend = _made(loaded, to, Path(scratch), size, precision, samples)
        parity = compare(loaded, backend, samples, images is not None)
        if checked:
            _accept(parity, precision)
        told = _described(file, loaded, to, precision, size, made, parity)
        told.write(out)  # first: what is cut short here is an export, whose files are missing
        for path in made:
            write_atomically(out / path.name, path.read_bytes())
    return told


def compare(
    loaded: Checkpoint, backend: Backend, samples: Sequence[Array], real: bool = True
) -> Parity:
    """How far images refined by a backend are from those of torch in fp32, without the tone step.

    Args:
        loaded: the refiner.
        backend: of its network.
        samples: (H, W, C) uint8.
        real: whether the samples are images, not noise.
    """
    ours = _untoned(loaded, backend_of("torch", loaded.network, "cpu", "fp32"))
    theirs = _untoned(loaded, backend)
    most, total, count = 0.0, 0.0, 0
    for seed, image in enumerate(samples):
        apart = np.abs(ours(image, seed=seed).astype(np.int16) - theirs(image, seed=seed))
        most, total, count = max(most, float(apart.max())), total + float(apart.sum()), count + 1
        del apart
    pixels = sum(image.size for image in samples)
    return Parity(images=count if real else 0, most=most, mean=total / max(pixels, 1))


def _check(
    to: str, precision: str, images: Path | None, out: Path, size: tuple[int, int] | None
) -> None:
    if to not in FORMATS:
        raise ConfigError(f"to must be one of {', '.join(FORMATS)}, got {to!r}")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "fp32" and to != "openvino":
        raise ConfigError(f"{precision} is for openvino; a graph for {to} is in fp32")
    if precision == "int8" and images is None:
        raise ConfigError("int8 is quantized by your own images: give their folder (--calibrate)")
    if size is not None and min(size) < 1:
        raise ConfigError(f"width and height must be 1 or more, got {size[0]}x{size[1]}")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; choose a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / exported.NAME).exists():
        raise ConfigError(f"{out} is not empty and holds no export; choose another folder")


def _samples(folder: Path | None, channels: int, size: tuple[int, int] | None) -> list[Array]:
    """(H, W, channels) uint8 of the size, or of their own."""
    import cv2

    if folder is None:
        width, height = size or (320, 240)
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (height, width, channels), np.uint8) for _ in range(2)]
    names = list_images(folder)
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(IMAGES, len(names)), dtype=int)]
    samples = []
    for name in chosen:
        path = folder / name
        pixels = decode_image(path.read_bytes(), str(path)).pixels
        if pixels.dtype == np.uint16:
            pixels = (pixels // 257).astype(np.uint8)
        pixels = pixels if size is None else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        samples.append(pixels)
    return samples


def _untoned(loaded: Checkpoint, backend: Backend) -> ImageRefiner:
    """A refiner that stops after the network."""
    return ImageRefiner(loaded.network, loaded.channels, loaded.bank, "never", backend=backend)


def _made(
    loaded: Checkpoint,
    to: str,
    folder: Path,
    size: tuple[int, int] | None,
    precision: str,
    samples: Sequence[Array],
) -> tuple[list[Path], Backend]:
    """The files of a graph, and what runs them here."""
    if to == "openvino":
        path = openvino_graph(loaded, folder, precision, samples)
        backend = OpenVINOBackend(loaded.network, precision, path)
        return [path, path.with_suffix(".bin")], backend
    assert size is not None
    change, run = Change(loaded.network), export_onnx if to == "onnx" else export_torch
    path, called = run(change, loaded.channels, size, folder)
    return [path], ChangeBackend(change, called)


def openvino_graph(
    loaded: Checkpoint, folder: Path, precision: str, samples: Sequence[Array]
) -> Path:
    """Write a network's graph, unchecked.

    Args:
        loaded: the refiner.
        folder: where.
        precision: "int8" quantizes it by the samples.
        samples: (H, W, C) uint8, one at least.
    """
    recorded = _recorded(loaded, samples if precision == "int8" else samples[:1])
    graph = Graph(loaded.network)
    model = model_of(graph, [torch.from_numpy(each) for each in recorded[0]])
    if precision == "int8":
        model = quantized(model, recorded, graph.is_staged)
    path = folder / GRAPH
    openvino().save_model(model, path, compress_to_fp16=False)
    return path


class _Recorder:
    """A backend that remembers what a graph is called with, and adds nothing."""

    device, precision, identity = torch.device("cpu"), "fp32", ""

    def __init__(self, network: nn.Module) -> None:
        self._graph = Graph(network)
        self.seen: list[list[Array]] = []

    def added(self, images: Tensor, noise: Tensor | None, reference: Tensor | None) -> Tensor:
        """See `Backend`."""
        inputs = self._graph.inputs_of(images, noise, reference)
        self.seen.append([each.numpy().copy() for each in inputs])
        return torch.zeros_like(images)


def _recorded(loaded: Checkpoint, samples: Iterable[Array]) -> list[list[Array]]:
    """What a graph is called with for these images."""
    recorder = _Recorder(loaded.network)
    refiner = ImageRefiner(
        loaded.network, loaded.channels, loaded.bank, loaded.config.tone.match, backend=recorder
    )
    for seed, image in enumerate(samples):
        refiner(image, seed=seed)
    return recorder.seen


def _accept(parity: Parity, precision: str) -> None:
    most, mean = LIMITS[precision]
    if parity.most > most or parity.mean > mean:
        raise ExportError(
            f"the graph's images are up to {parity.most:.0f} grey levels from torch's, "
            f"{parity.mean:.3f} in the mean; allowed in {precision} are {most:.0f} and {mean:g}. "
            f"Nothing was written; {_WAYS_OUT[precision]}"
        )


def _described(
    file: Path,
    loaded: Checkpoint,
    to: str,
    precision: str,
    size: tuple[int, int] | None,
    made: Sequence[Path],
    parity: Parity,
) -> Exported:
    inputs, output, outside = _words(loaded, to)
    return Exported(
        simgan_aug=metadata.version("simgan-aug"),
        form=exported.FORM,
        refiner_sha256=sha256_of(file),
        format=to,
        precision=precision,
        files={path.name: sha256_of(path) for path in made},
        size=None if to == "openvino" and Graph(loaded.network).is_staged else size,
        inputs=inputs,
        output=output,
        outside=outside,
        receptive_field=getattr(loaded.network, "receptive_field", None),
        parity=parity,
        versions={name: _version(name) for name in ("torch", "openvino", "nncf", "onnx")},
    )


def _words(loaded: Checkpoint, to: str) -> tuple[dict[str, str], str, list[str]]:
    """What goes in, what comes out, and what is left to do."""
    network, channels = loaded.network, loaded.channels
    staged = to == "openvino" and Graph(network).is_staged
    form = "(1, H, W, C)" if to == "openvino" else "(1, C, H, W)"
    noise = int(getattr(network, "noise_channels", 0))
    words = {
        "images": f"{form} float32 in [-1, 1], {channels} channels, red first",
        "noise": f"{form} float32, {noise} channels, standard normal",
        "reference": f"(1, {channels}, Q) float32 in [-1, 1], quantiles of a real photo's channels",
    }
    if staged:
        words["images"] = (
            "(1, H/f, W/f, C f f) float32: images in [-1, 1] and noise, padded to blocks of f px "
            "by reflection, blocks as channels; `fold` of the network"
        )
    names = names_of(network) if to == "openvino" else Change(network).names
    what = "(1, H/f, W/f, C f f) float32, of which `unfold` makes" if staged else form
    output = f"{what} what is added to images, in their units"
    outside = [
        "add the output to the exact pixels, clamp to [-1, 1]",
        f"tone step: {loaded.config.tone.match if loaded.bank is not None else 'none'}",
    ]
    return {name: words[name] for name in names}, output, outside


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
