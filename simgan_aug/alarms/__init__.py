"""Has a training gone wrong? A handful of images, looked at now and then, and what to turn.

`check`, `check_growth` and `check_likeness` are pure: images in, alarms out. `Watch` holds a run's
handful and looks at the run's networks without leaving a trace in them.
"""

from simgan_aug.alarms.checks import Alarm, check, check_growth, check_likeness
from simgan_aug.alarms.watch import Handful, Watch

__all__ = ["Alarm", "Handful", "Watch", "check", "check_growth", "check_likeness"]
