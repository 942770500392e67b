"""Has a training gone wrong? A handful of images, looked at now and then, and what to turn.

`check` is pure: images before and after refining in, alarms out. `Watch` holds a run's handful and
looks at the run's networks without leaving a trace in them.
"""

from simgan_aug.alarms.checks import Alarm, check
from simgan_aug.alarms.watch import Handful, Watch

__all__ = ["Alarm", "Handful", "Watch", "check"]
