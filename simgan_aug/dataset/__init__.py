"""Refining a COCO data set: same names, same annotations byte for byte, other pixels."""

from simgan_aug.dataset.finish import Summary
from simgan_aug.dataset.job import RefineJob, refine
from simgan_aug.dataset.verify import Verdict, verify

__all__ = ["RefineJob", "Summary", "Verdict", "refine", "verify"]
