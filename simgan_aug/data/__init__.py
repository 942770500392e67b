"""What training a refiner reads, and how a training loop of yours refines its batches."""

from simgan_aug.data.batches import BatchRefiner
from simgan_aug.data.crops import Batches, Crops
from simgan_aug.data.fitting import fitted
from simgan_aug.data.inputs import Inputs
from simgan_aug.data.listings import Origin
from simgan_aug.data.loader import RefinedLoader
from simgan_aug.data.resident import Resident
from simgan_aug.data.source import Source
from simgan_aug.data.sources import read_real, read_synthetic
from simgan_aug.data.tones import tone_bank

__all__ = [
    "BatchRefiner",
    "Batches",
    "Crops",
    "Inputs",
    "Origin",
    "RefinedLoader",
    "Resident",
    "Source",
    "fitted",
    "read_real",
    "read_synthetic",
    "tone_bank",
]
