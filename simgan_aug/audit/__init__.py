"""Did a label move? For every box, mask and keypoint a number, and a guard that acts on it."""

from simgan_aug.audit.guard import Guard, Guarded
from simgan_aug.audit.image import ImageAudit, LabelAudit, audit
from simgan_aug.audit.limits import LOW_IS_BAD, MEASURES, Limits
from simgan_aug.audit.totals import Totals

__all__ = [
    "LOW_IS_BAD",
    "MEASURES",
    "Guard",
    "Guarded",
    "ImageAudit",
    "LabelAudit",
    "Limits",
    "Totals",
    "audit",
]
