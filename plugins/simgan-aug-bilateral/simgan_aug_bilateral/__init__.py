"""Refiners that re-tone an image and draw nothing into it."""

from simgan_aug import hookimpl
from simgan_aug_bilateral.curves import CurvesRefiner
from simgan_aug_bilateral.grid import BilateralRefiner

__all__ = ["BilateralRefiner", "CurvesRefiner"]


@hookimpl
def simgan_register_refiners():
    """A bilateral grid of affine colour transforms, and one map of colours for the whole image."""
    return {"bilateral": BilateralRefiner, "curves": CurvesRefiner}
