"""Jobs over a COCO data set: refine it, hold it against its hashes, audit its labels."""

from simgan_aug.dataset.audit_job import AuditJob
from simgan_aug.dataset.finish import Summary
from simgan_aug.dataset.job import RefineJob, refine
from simgan_aug.dataset.verify import Verdict, verify

__all__ = ["AuditJob", "RefineJob", "Summary", "Verdict", "refine", "verify"]
