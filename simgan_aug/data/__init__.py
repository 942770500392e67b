"""What training a refiner reads, and how a training loop of yours refines its batches."""

from simgan_aug.data.batches import BatchRefiner
from simgan_aug.data.crops import Crops, tone_bank
from simgan_aug.data.loader import RefinedLoader
from simgan_aug.data.sources import Source, read_real, read_synthetic

__all__ = [
    "BatchRefiner",
    "Crops",
    "RefinedLoader",
    "Source",
    "read_real",
    "read_synthetic",
    "tone_bank",
]
