"""Refiners and discriminators; what a network must offer is written in `simgan_aug.hookspecs`."""

from simgan_aug.networks.contract import condition, halo, memory_per_pixel
from simgan_aug.networks.patch import PaperPatch, Patch
from simgan_aug.networks.resnet import ResNetRefiner
from simgan_aug.networks.unshuffle import UnshuffleRefiner

__all__ = [
    "PaperPatch",
    "Patch",
    "ResNetRefiner",
    "UnshuffleRefiner",
    "condition",
    "halo",
    "memory_per_pixel",
]
