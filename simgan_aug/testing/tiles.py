"""Tiles cut by the declared halo and grid, beside the whole image."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from simgan_aug.bank import Bank
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks.contract import halo, takes_reference
from simgan_aug.testing.checks import differs, drawn, lesson
from simgan_aug.testing.fields import GLOBAL, REMEDY, declared, grid_of
from simgan_aug.testing.subject import Subject, tones

LEVEL = 0.02
"""Grey levels that float32 may be apart in tiles: none, once they are rounded."""


def multiple(subject: Subject) -> None:
    """An image that is moved by the declared `multiple` (1 px if there is none) comes out moved."""
    for channels in subject.channels:
        network = subject.build(channels)
        if declared(network) is None:
            continue
        grid = grid_of(network)
        works = (n for n in range(grid, 65) if _moves_along(subject, network, channels, n))
        found = next(works, None)
        assert found == grid, lesson(
            f"that an image moved by multiple = {grid} px comes out as before, but moved",
            f"other values{f', as by all less than {found} px' if found else ''}",
            "strides, pooling or pixel-unshuffle, whose blocks lie on a grid; or a position that "
            "enters as a value",
            f"declare multiple = {found}" if found else "leave receptive_field undeclared",
        )


def tiles(subject: Subject) -> None:
    """A large image that inference cuts into tiles comes out as if it had not."""
    for channels in subject.channels:
        network = subject.build(channels)
        margin = halo(network)
        if declared(network) is None or margin is None:
            continue
        # An odd side for tiles shows a grid that was not declared. By bytes per pixel, inference
        # takes an image this small for one that has to be cut.
        per_pixel = max(1, 2**20 // (2 * margin + 47) ** 2)
        side = math.isqrt(2**20 // per_pixel) + 1
        image = drawn(channels, side + 5, side + 12, low=0)
        whole, cut = (_refined(network, image, each) for each in (1, per_pixel))
        levels = (whole - cut).abs().max().item() * 255
        assert levels < LEVEL, lesson(
            "of an image in tiles what the whole image gives, to 0 grey levels",
            f"{levels:.3g} grey levels apart",
            GLOBAL + "; a grid that is not declared as `multiple`",
            REMEDY,
        )


def _refined(network: nn.Module, image: Tensor, bytes_per_pixel: int) -> Tensor:
    """An image refined in 1 MiB."""
    bank, network = None, copy.deepcopy(network)
    if takes_reference(network):
        bank = Bank(tones(2, len(image)))
    network.bytes_per_pixel = bytes_per_pixel  # type: ignore[assignment]
    fixed = {"device": "cpu", "max_workspace_mb": 1, "precision": "fp32"}
    refine = ImageRefiner(network, len(image), bank, match="never", **fixed)  # type: ignore[arg-type]
    refined: Tensor = refine(image, seed=3)
    return refined


def _moves_along(subject: Subject, network: nn.Module, channels: int, shift: int) -> bool:
    """Whether an image without its first rows and columns comes out as a part of the whole."""
    margin = (halo(network) or 0) + shift
    side = 2 * margin + 24
    sample = subject.sample(network, channels, (side, side), batch=1)

    def cut(each: Tensor) -> Tensor:
        return each[..., shift:, shift:] if each.ndim == 4 else each

    with torch.no_grad():
        whole, moved = sample.through(network), sample.map(cut).through(network)
    kept = slice(margin, side - margin)
    there = slice(margin - shift, side - margin - shift)
    return not differs(whole[..., kept, kept], moved[..., there, there])
