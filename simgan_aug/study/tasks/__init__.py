"""What a probe learns: one file a task, all behind one Protocol."""

from __future__ import annotations

from simgan_aug.study.canvas import Size
from simgan_aug.study.tasks.classify import Classify
from simgan_aug.study.tasks.contract import Task
from simgan_aug.study.tasks.detect import Detect
from simgan_aug.study.tasks.keypoints import Keypoints
from simgan_aug.study.tasks.segment import Segment

_KINDS: dict[str, type[Task]] = {
    "classify": Classify,
    "segment": Segment,
    "keypoints": Keypoints,
    "detect": Detect,
}


def task_of(name: str) -> type[Task]:
    """The class of a task by its name in `settings.TASKS`."""
    return _KINDS[name]


__all__ = ["Classify", "Detect", "Keypoints", "Segment", "Size", "Task", "task_of"]
