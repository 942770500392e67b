"""What of the settings is told by the images themselves."""

from __future__ import annotations

import dataclasses

import numpy as np

from simgan_aug.config import Data
from simgan_aug.data.source import Source
from simgan_aug.pixels import all_bits

SMALLEST = 32
"""Px below which no side of a crop is shortened: a discriminator has to see something."""


def fitted(config: Data, *sides: Source) -> Data:
    """The settings with crops that fit into the images, and the white of those of 16 bits.

    Crops are no larger than the median image of the smaller side, in height and in width. What a
    network learns of enlarged images is of another scale than it refines: digits of 48 px took a
    classifier to .62 where they were enlarged to 64, and to .74 where they were not
    (examples/study/RESULTS.md). White is the level of all bits that images use.
    """
    highest = max(side.highest for side in sides)
    white = config.white or (all_bits(highest) if highest else 0)
    median = np.min([np.median(side.known_sizes(), axis=0) for side in sides], axis=0)
    room = np.maximum(SMALLEST, np.floor(median * max(1.0, config.scale[0]))).astype(int)
    height, width = np.minimum(config.crop, room).tolist()
    return dataclasses.replace(config, white=white, crop=(height, width))
