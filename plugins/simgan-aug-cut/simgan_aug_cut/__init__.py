"""CUT (Park et al., arXiv:2007.15651) as parts of simgan-aug: a baseline to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from simgan_aug.hookspecs import hookimpl
from simgan_aug_cut.networks import CutPatchGAN, CutResNet
from simgan_aug_cut.patch_nce import PatchNCE

__all__ = ["CutPatchGAN", "CutResNet", "PatchNCE"]

PRESETS = ("fastcut", "fastcut-small")


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


@hookimpl
def simgan_register_presets() -> Mapping[str, Callable[[], Path]]:
    """FastCUT, for a GPU and for a CPU."""
    folder = Path(__file__).parent
    return {name: partial(folder.joinpath, f"{name}.toml") for name in PRESETS}
