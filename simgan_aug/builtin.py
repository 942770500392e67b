"""Our own parts, offered through the same hooks as anyone's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from simgan_aug import losses, networks
from simgan_aug.hookspecs import hookimpl


@hookimpl
def simgan_register_refiners() -> Mapping[str, Callable[..., Any]]:
    """The paper's network and the fast default."""
    return {"resnet": networks.ResNetRefiner, "unshuffle": networks.UnshuffleRefiner}


@hookimpl
def simgan_register_discriminators() -> Mapping[str, Callable[..., Any]]:
    """The paper's two discriminators and the recipe's."""
    return {"paper-patch": networks.PaperPatch, "patch": networks.Patch}


@hookimpl
def simgan_register_losses() -> Mapping[str, Callable[..., Any]]:
    """Cross-entropy as in the paper, least squares, relativistic."""
    return {
        "cross_entropy": losses.CrossEntropy,
        "least_squares": losses.LeastSquares,
        "relativistic": losses.Relativistic,
    }


@hookimpl
def simgan_register_feature_transforms() -> Mapping[str, Callable[..., Any]]:
    """psi of the paper (identity, colour mean, derivatives) and a blur."""
    return {
        "identity": lambda images: images,
        "channel_mean": losses.channel_mean,
        "image_gradient": losses.image_gradient,
        "blur": losses.blur,
        "edge_direction": losses.edge_direction,
    }


@hookimpl
def simgan_register_presets() -> Mapping[str, Callable[[], Path]]:
    """What the paper trains."""
    folder, names = Path(__file__).parent / "presets", ("paper-eyes", "paper-hands")
    return {name: partial(folder.joinpath, f"{name}.toml") for name in names}
