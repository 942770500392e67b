"""Refining a COCO data set: same names, same annotations byte for byte, other pixels."""

from simgan_aug.dataset.finish import Summary, Verdict, verify
from simgan_aug.dataset.job import RefineJob, refine

__all__ = ["RefineJob", "Summary", "Verdict", "refine", "verify"]
