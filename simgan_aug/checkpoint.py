"""Refiner files: safetensors, with the config and the provenance in the header; never pickle.

A refiner file is all that inference needs. It names a *registered* part and can import nothing: the
worst a hostile file can do is to choose among installed code. Beside it, while training, lies the
state that a resumed run goes on from.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from simgan_aug import configfile, plugins
from simgan_aug.bank import COLOURS, Bank
from simgan_aug.config import Config
from simgan_aug.devices import plain_defaults
from simgan_aug.errors import CheckpointError, ConfigError, PluginError, did_you_mean
from simgan_aug.files import write_atomically
from simgan_aug.tone import QUANTILES

FORMAT = 2
"""Version of the file; those of other versions, whose networks compute otherwise, are refused."""

REFINER = "refiner.safetensors"
"""In the folder of a training run."""

_HEADER = "simgan_aug"
_STATE_HEADER = "simgan_aug_state"
_BANK, _BIAS = "tone.bank", "tone.bias"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a refiner file holds."""

    network: nn.Module
    """The refiner, built and filled, on the CPU."""
    channels: int
    """Of the images it takes."""
    bank: Bank | None
    """Tones of real photos; None: no tone step."""
    config: Config
    """What it was trained with."""
    provenance: dict[str, Any]
    """Fingerprints of the data, steps, seed, versions, licence."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a refiner file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    part = checkpoint.config.refiner
    distribution, version = plugins.provider("refiner", part.name)
    header = {
        "format": FORMAT,
        "channels": checkpoint.channels,
        "range": [-1, 1],
        "reach": 1.0 if checkpoint.bank is None else checkpoint.bank.reach,
        "refiner": {"name": part.name, "distribution": distribution, "version": version},
        "config": checkpoint.config.to_builtins(),
        "provenance": checkpoint.provenance,
    }
    tensors = {
        f"refiner.{name}": _plain(value) for name, value in checkpoint.network.state_dict().items()
    }
    if checkpoint.bank is not None:
        tensors[_BANK] = _plain(checkpoint.bank.tones)
        if checkpoint.bank.bias is not None:
            tensors[_BIAS] = _plain(checkpoint.bank.bias)
    write_atomically(Path(path), save(tensors, metadata={_HEADER: json.dumps(header)}))


def locate(refiner: str | os.PathLike[str]) -> Path:
    """The file of a refiner given by its path or by the folder of a training run, or by the name
    under which a plugin ships it.

    A name has no folder and no ending `.safetensors`; a file of that name goes before it.

    Raises:
        CheckpointError: there is neither; names the nearest. Or the plugin fails to give its file.
    """
    path = Path(os.path.expanduser(refiner))
    if (path / REFINER).is_file():
        return path / REFINER
    if path.is_file() or path.suffix == ".safetensors" or len(path.parts) > 1:
        return path
    name = str(refiner)
    if name in plugins.parts("checkpoint"):
        try:
            return Path(plugins.build("checkpoint", name))
        except Exception as error:
            distribution, version = plugins.provider("checkpoint", name)
            raise CheckpointError(
                f"refiner {name!r} of {distribution} {version}: its file is not to be had: "
                f"{type(error).__name__}: {error}"
            ) from error
    if name in plugins.parts("refiner"):
        raise CheckpointError(
            f"{name!r} is a network without weights, which would change nothing or ruin "
            "everything: train it (simgan-aug train), then give the file refiner.safetensors"
        )
    raise CheckpointError(
        f"no refiner {name!r}: it is neither a file nor a name under which an installed plugin "
        f"ships a trained refiner{did_you_mean(name, plugins.parts('checkpoint'))}"
    )


@plain_defaults()
def load(refiner: str | os.PathLike[str]) -> Checkpoint:
    """Read a refiner file; checked are names, shapes, types and that all values are finite.

    Args:
        refiner: see `locate`.

    Raises:
        CheckpointError: the file is missing, damaged, no refiner, of a later version, or needs a
            part that is not installed; says which distribution offers it.
    """
    path = locate(refiner)
    header, tensors = _read(path, _HEADER)
    try:
        if not header["format"] <= FORMAT:
            raise CheckpointError(
                f"{path}: format {header['format']} is newer than this simgan_aug "
                f"(format {FORMAT}); upgrade it"
            )
        if header["format"] < FORMAT:
            raise CheckpointError(
                f"{path}: written by an earlier simgan_aug (format {header['format']}), whose "
                "refiner computes otherwise; train it again, or refine with that version"
            )
        settings = configfile.parse(header["config"], str(path), is_whole=True)
        channels, provenance = int(header["channels"]), dict(header["provenance"])
        network = _network(path, settings, channels, tensors, dict(header["refiner"]))
        reach = _reach(path, header)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its header is damaged: {type(error).__name__}: {error}"
        ) from None
    bank = _bank(path, tensors, settings, channels, reach)
    if bank is not None and bank.bias is None:  # as of an earlier simgan_aug, which knew no choice
        tone = dataclasses.replace(settings.tone, choice="any")
        settings = dataclasses.replace(settings, tone=tone)
    return Checkpoint(network, channels, bank, settings, provenance)


def save_state(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write what a resumed run goes on from; see `simgan_aug.training.TrainingState.tensors`.

    Raises:
        OutputError: it cannot be written.
    """
    plain = {name: _plain(value) for name, value in tensors.items()}
    write_atomically(path, save(plain, metadata={_STATE_HEADER: json.dumps(dict(header))}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a state file.

    Raises:
        CheckpointError: the file is missing, damaged or no state.
    """
    header, tensors = _read(path, _STATE_HEADER)
    return tensors, header


def _read(path: str | os.PathLike[str], key: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not Path(path).is_file():
        raise CheckpointError(
            f"{path}: no such file; expected a .safetensors file that simgan-aug train has written"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if key not in metadata:
                raise CheckpointError(f"{path}: {_instead(metadata, key)}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        header = json.loads(metadata[key])
        infinite = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    except (SafetensorError, OSError, ValueError, RecursionError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file: {error}") from None
    if not isinstance(header, dict):
        raise CheckpointError(
            f"{path}: its header is damaged: expected an object, got {type(header).__name__}"
        )
    if infinite:
        raise CheckpointError(
            f"{path}: {infinite[0]} has values that are not finite; take an earlier checkpoint"
        )
    return header, tensors


def _instead(metadata: Mapping[str, str], key: str) -> str:
    """What a file is that has not the header that was looked for."""
    if key == _HEADER and _STATE_HEADER in metadata:
        return f"the state that a training goes on from; its refiner is {REFINER}, beside it"
    return "a safetensors file, but not one that simgan-aug train has written"


def _network(
    path: str | os.PathLike[str],
    settings: Config,
    channels: int,
    tensors: Mapping[str, Tensor],
    made_by: Mapping[str, Any],
) -> nn.Module:
    part = settings.refiner
    build = functools.partial(
        plugins.build, "refiner", part.name, channels=channels, **part.options
    )
    try:
        expected = {f"refiner.{name}": value for name, value in _shapes(build).items()}
    except PluginError as error:
        needed = f"{made_by.get('distribution')} {made_by.get('version')}"
        raise CheckpointError(
            f"{path}: needs the refiner {part.name!r} of {needed}, which is not installed, or is "
            f"broken or disabled: {error}"
        ) from None
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}{_other_version(part.name, made_by)}") from None
    for name in sorted({*expected, *tensors} - {_BANK, _BIAS}):
        want, have = (_form(side.get(name)) for side in (expected, tensors))
        if want != have:
            other = _other_version(part.name, made_by)
            raise CheckpointError(f"{path}: {name}: expected {want}, got {have}{other}")
    distribution, _ = plugins.provider("refiner", part.name)
    if distribution != made_by.get("distribution"):
        other = _other_version(part.name, made_by)
        warnings.warn(f"{path}: its network may be another one of its name{other}", stacklevel=2)
    with torch.random.fork_rng(devices=[]):  # first weights are drawn, and then overwritten
        network: nn.Module = build()
    network.load_state_dict({name.removeprefix("refiner."): tensors[name] for name in expected})
    return network


def _other_version(refiner: str, made_by: Mapping[str, Any]) -> str:
    """The tail of a message, if the file was written with another part than is installed."""
    here = plugins.provider("refiner", refiner)
    wrote = str(made_by.get("distribution")), str(made_by.get("version"))
    return "" if wrote == here else f" (written with {' '.join(wrote)}, here is {' '.join(here)})"


def _shapes(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """The state that a refiner has, without its values."""
    try:
        with torch.device("meta"):  # nothing is allocated before the file has proved the shapes
            return build().state_dict()
    except Exception:  # a constructor that computes with tensors, which meta tensors cannot
        with torch.random.fork_rng(devices=[]):
            return build().state_dict()


def _bank(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    settings: Config,
    channels: int,
    reach: float,
) -> Bank | None:
    tones, bias = tensors.get(_BANK), tensors.get(_BIAS)
    if tones is None:
        if settings.tone.photos:
            raise CheckpointError(
                f"{path}: its config has a tone step, but the tones ({_BANK}) are missing"
            )
        return None
    forms = [(count, QUANTILES) for count in (channels, min(channels, COLOURS))]
    is_known = tones.ndim == 3 and tones.shape[1:] in forms and tones.dtype == torch.float32
    if not is_known or not len(tones):
        raise CheckpointError(
            f"{path}: {_BANK}: expected float32 (photos, {forms[-1][0]}, {QUANTILES}), "
            f"got {_form(tones)}"
        )
    if bias is not None and (bias.shape != tones.shape[:1] or bias.dtype != torch.float32):
        raise CheckpointError(
            f"{path}: {_BIAS}: expected float32 {tuple(tones.shape[:1])}, got {_form(bias)}"
        )
    return Bank(tones, bias, reach)


def _reach(path: str | os.PathLike[str], header: Mapping[str, Any]) -> float:
    """How far a match goes; the whole way in a file of an earlier simgan_aug."""
    reach = float(header.get("reach", 1.0))
    if not 0 <= reach <= 1:
        raise CheckpointError(f"{path}: reach must lie in [0, 1], got {reach}")
    return reach


def _form(tensor: Tensor | None) -> str:
    return (
        "nothing"
        if tensor is None
        else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
    )


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.double()).all())


def _plain(tensor: Tensor) -> Tensor:
    """A copy that shares no memory with another tensor (tied weights), which the format forbids."""
    return tensor.detach().cpu().contiguous().clone()
