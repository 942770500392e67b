"""Refining a COCO data set: same names, same annotations byte for byte, other pixels."""

from simgan_aug.dataset.job import RefineJob, Summary, refine

__all__ = ["RefineJob", "Summary", "refine"]
