"""Makes the forms of an arm: trains its refiner, runs its command, draws its reference photos."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from simgan_aug.inference import ImageRefiner
from simgan_aug.run import Inputs
from simgan_aug.study import forms, references
from simgan_aug.study.arms import ORACLE, SHARED, Arm
from simgan_aug.study.forms import Making
from simgan_aug.study.material import Material
from simgan_aug.study.probe import Feed
from simgan_aug.study.refiners import run_command, train_refiner

Array = np.ndarray[Any, Any]

PLAIN = ("raw", "jitter", ORACLE)
"""Arms that change no image before augmentation does."""

SINGLE = ("colour", "folder", "command")
"""Arms of one form."""


class Maker:
    """Makes forms, and keeps those last made where the next arms share them.

    Args:
        material: of the study.
    """

    def __init__(self, material: Material) -> None:
        self.material, self.settings = material, material.settings
        self._kept: tuple[tuple[str, int], Array] | None = None
        self._inputs = Inputs(
            annotations=self.settings.synthetic,
            images=material.images,
            real=self.settings.real_train,
        )

    def make(self, arm: Arm, seed: int) -> Making:
        """The forms of an arm, (V, N, H, W, 3).

        Raises:
            SimganAugError: they cannot be made.
        """
        key = (arm.maker, seed)
        if self._kept is not None and self._kept[0] == key:
            return self._kept[1]
        self._kept = None  # before others are made: each may be half a gigabyte
        made = yield from self._make(arm, seed)
        if self.settings.only_labels and arm.kind not in PLAIN:
            made = forms.kept_outside(made, self.material.synthetic)
        self._kept = (key, made) if arm.kind in SHARED else None
        return made

    def feed(self, arm: Arm, made: Array, seed: int) -> Feed:
        """How an arm shows its forms to a probe."""
        if arm.kind == "mixed":
            return forms.mixed(made, self.material.synthetic.images, seed)
        if arm.kind == "strength":
            return forms.of_strength(made, self.material.synthetic.images, seed)
        return forms.plain(made)

    def ticks(self, arm: Arm) -> int:
        """Signs of life that `make` gives, about."""
        if arm.kind in PLAIN:
            return 0
        count = 1 if arm.kind in SINGLE else self.settings.forms
        ticks = count * -(-len(self.material.synthetic) // forms.CHUNK)
        if arm.name in self.material.configs:
            ticks += self.material.configs[arm.name].training.total
        return ticks

    def _make(self, arm: Arm, seed: int) -> Making:
        split, photos, count = self.material.synthetic, self.material.photos, self.settings.forms
        images = self.material.images
        if arm.kind == ORACLE:
            assert self.material.oracle is not None
            return self.material.oracle.images[None]
        if arm.kind in PLAIN:
            return split.images[None]
        if arm.kind == "colour":
            return (yield from references.coloured(split, images, photos))
        if arm.kind in ("fda", "hm", "pda"):
            return (yield from references.referred(arm.kind, split, images, photos, count, seed))
        if arm.kind in ("folder", "command"):
            folder = Path(arm.source) if arm.kind == "folder" else self._commanded(arm, seed)
            return (yield from forms.from_folder(split, folder))
        return (yield from self._refined(arm, seed))

    def _refined(self, arm: Arm, seed: int) -> Making:
        """By a refiner of the user, or by one that is trained for this seed."""
        file = Path(arm.source)
        if arm.name in self.material.configs:
            config = self.material.configs[arm.name]
            training = dataclasses.replace(config.training, seed=seed)
            config = dataclasses.replace(config, training=training)
            out = self.settings.out / "runs" / f"{arm.maker}-{seed}"
            file = yield from train_refiner(config, self._inputs, out, self.settings.device)
        refiner = ImageRefiner.load(file, self.settings.device)
        images, count = self.material.images, self.settings.forms
        return (yield from forms.refined(self.material.synthetic, images, refiner, count, seed))

    def _commanded(self, arm: Arm, seed: int) -> Path:
        """The folder that a command has written; once for all seeds if it does not ask for one."""
        name = f"{arm.name}-{seed}" if "{seed}" in arm.source else arm.name
        values = {
            key: str(getattr(self._inputs, key).resolve())
            for key in ("annotations", "images", "real")
        }
        out, split = self.settings.out / "made" / name, self.material.synthetic

        def check(folder: Path) -> None:
            for _ in forms.from_folder(split, folder):
                pass

        return run_command(arm.source, {**values, "seed": str(seed)}, out, check)
