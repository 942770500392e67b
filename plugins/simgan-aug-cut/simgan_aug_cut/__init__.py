"""CUT (Park et al., arXiv:2007.15651) as parts of simgan-aug: a baseline to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from simgan_aug.errors import ConfigError, did_you_mean
from simgan_aug.hookspecs import hookimpl
from simgan_aug_cut.networks import CutPatchGAN, CutResNet
from simgan_aug_cut.patch_nce import PatchNCE

__all__ = ["CutPatchGAN", "CutResNet", "PatchNCE", "recipe"]

RECIPES = ("fastcut", "fastcut-small")


def recipe(name: str) -> Path:
    """The TOML file of a recipe, one of `RECIPES`, for `load_config` or `train --config`.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe named {name!r}{did_you_mean(name, RECIPES)}")
    return Path(str(resources.files("simgan_aug_cut") / f"{name}.toml"))


@hookimpl
def simgan_register_refiners() -> Mapping[str, Callable[..., Any]]:
    """The generator of CUT."""
    return {"cut-resnet": CutResNet}


@hookimpl
def simgan_register_discriminators() -> Mapping[str, Callable[..., Any]]:
    """The discriminator of CUT."""
    return {"cut-patchgan": CutPatchGAN}


@hookimpl
def simgan_register_regularizations() -> Mapping[str, Callable[..., Any]]:
    """The contrastive term of CUT."""
    return {"patch_nce": PatchNCE}
