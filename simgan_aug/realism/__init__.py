"""How far from real? Distances between two sets of images, each beside its floor and its ceiling.

No number here means anything alone: `compare` prints it beside the floor (real against real) and
the ceiling (synthetic against real). And realism rewards labels that have moved as readily as
better pictures (a network that draws hands where boxes are not can be as real as any): read it
beside an audit of the labels, never instead of one.
"""

from simgan_aug.realism.classifier import TwoSampleTest, two_sample_test
from simgan_aug.realism.colour import colour_distance, colours
from simgan_aug.realism.filters import features
from simgan_aug.realism.groups import near_duplicates, thumbnail
from simgan_aug.realism.mmd import kid
from simgan_aug.realism.resampling import Distance
from simgan_aug.realism.sample import Groups, Images, Named
from simgan_aug.realism.scores import WARNING, Comparison, Measure, compare
from simgan_aug.realism.spaces import extractor
from simgan_aug.realism.spectrum import power_spectrum, spectrum_distance

__all__ = [
    "WARNING",
    "Comparison",
    "Distance",
    "Groups",
    "Images",
    "Measure",
    "Named",
    "TwoSampleTest",
    "colour_distance",
    "colours",
    "compare",
    "extractor",
    "features",
    "kid",
    "near_duplicates",
    "power_spectrum",
    "spectrum_distance",
    "thumbnail",
    "two_sample_test",
]
