"""Make synthetic training images look real without moving their labels."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simgan_aug.hookspecs import hookimpl

if TYPE_CHECKING:
    from simgan_aug.config import Config
    from simgan_aug.dataset import refine
    from simgan_aug.errors import SimganAugError
    from simgan_aug.inference import ImageRefiner
    from simgan_aug.training import train

__version__ = "0.1.0"

__all__ = ["Config", "ImageRefiner", "SimganAugError", "hookimpl", "refine", "train"]

_HOMES = {
    "Config": "config",
    "ImageRefiner": "inference",
    "SimganAugError": "errors",
    "refine": "dataset",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: `import simgan_aug` itself loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'simgan_aug' has no attribute {name!r}")
    return getattr(importlib.import_module(f"simgan_aug.{_HOMES[name]}"), name)
