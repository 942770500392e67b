"""Did refining help, on one's own data, honestly?

    study = Study(Settings(synthetic=..., real_train=..., real_test=..., out=Path("study")))
    for _ in study.run():
        pass
    print(study.table())

A small probe network is trained on the synthetic images as each arm shows them, and scored on
labelled real photos: raw, jittered, colour-matched by others' methods, refined, and trained on real
labels where there are any. Each arm gets the same steps, seeds and search for its augmentation,
but for the baseline "jitter", which has more to choose from.
"""

from simgan_aug.study.arms import BASELINES, ORACLE, REFINERS, Arm
from simgan_aug.study.gains import Gain, gain, gain_over_best
from simgan_aug.study.results import Results, Row
from simgan_aug.study.settings import TASKS, Settings
from simgan_aug.study.study import Study
from simgan_aug.study.verdict import HELPED, HURT, NOTHING, UNTOLD, Verdict, verdict

__all__ = [
    "BASELINES",
    "HELPED",
    "HURT",
    "NOTHING",
    "ORACLE",
    "REFINERS",
    "TASKS",
    "UNTOLD",
    "Arm",
    "Gain",
    "Results",
    "Row",
    "Settings",
    "Study",
    "Verdict",
    "gain",
    "gain_over_best",
    "verdict",
]
