"""The training job: a folder, from which it can be resumed, around `simgan_aug.training.train`.

What the folder holds: `simgan_aug.runfolder`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PilImage

from simgan_aug import checkpoint, data, plugins
from simgan_aug.alarms import Alarm
from simgan_aug.alarms.watch import at_rest
from simgan_aug.config import Config
from simgan_aug.data.inputs import Inputs
from simgan_aug.devices import resolve_device
from simgan_aug.errors import ConfigError, DataError, DivergenceError
from simgan_aug.folders import alone_in
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks.contract import takes_reference
from simgan_aug.oversight import Oversight
from simgan_aug.parts import (
    CONTOURS,
    build_loss,
    build_network,
    build_student,
    build_terms,
    check_parts,
    regularization,
)
from simgan_aug.preview import preview
from simgan_aug.ranks import Ranks
from simgan_aug.rollback import LastGood, Rollback
from simgan_aug.runfolder import (
    INFO,
    REFINER,
    STATE,
    TEACHER,
    check_folder,
    cut_alike,
    provenance,
    read_info,
    read_saved,
    restore,
    write_info,
    written,
)
from simgan_aug.state import TrainingState
from simgan_aug.training import Step, train

__all__ = ["INFO", "REFINER", "STATE", "Inputs", "Run", "check_parts", "read_info"]

SAVE_EVERY = 200
"""Steps between two saves, of which the last is where a training that diverges goes back to; and
between two looks for alarms."""


class Run:
    """One training run: read the data, build the parts, yield steps, save.

    Args:
        config: what to train and how.
        inputs: see `Inputs`.
        out: folder of the run; it must not hold a run yet, unless `resume`.
        device: "auto" or what `torch.device` takes.
        resume: go on from the folder's last save.
        licence: of the data, for the provenance of the refiner.
        ranks: the processes that train together, all of which do the same; None: this one alone.
            The first writes and tells, the others are silent.

    Raises:
        SimganAugError: the data, the config or the folder cannot be used; nothing has been written.
    """

    def __init__(
        self,
        config: Config,
        inputs: Inputs,
        out: Path,
        *,
        device: str = "auto",
        resume: bool = False,
        licence: str = "",
        ranks: Ranks | None = None,
    ) -> None:
        self.inputs, self.out, self.licence, self.ranks = inputs, out, licence, ranks or Ranks()
        self.device = self.ranks.device or resolve_device(device)
        check_folder(out, inputs, resume)
        self._found = written(out)
        saved = read_saved(out) if resume else None
        self.config = cut_alike(config, saved, out, self.ranks.world) if saved else config
        self.loss = build_loss(config.loss)
        seed = config.training.seed
        self.synthetic = data.read_synthetic(
            inputs.synthetic_origins,
            config.data,
            config.regularization.labels,
            inputs.synthetic_weights,
        )
        self.real = data.read_real(
            inputs.real_origins, config.data, self.synthetic, inputs.real_weights
        )
        fitted = data.fitted(config.data, self.synthetic, self.real)
        if resume:  # as it was begun, which may have been by an earlier version: so is its history
            height, width = read_info(out)["config"]["data"]["crop"]
            fitted = dataclasses.replace(fitted, crop=(height, width))
        self.config = dataclasses.replace(self.config, data=fitted)
        self.bank = data.tone_bank(
            self.real, self.synthetic, config.tone, seed, self.config.data.white
        )
        self.state = self._start()
        self.state.scalars[CONTOURS] = config.regularization.contours
        self.regularization = regularization(config, self.state.scalars)
        if saved:
            restore(self.state, saved, out, self.fingerprints)
        self.alarms: list[Alarm] = []
        """What was found wrong when it was last looked for."""
        self.rollbacks: list[Rollback] = []
        """How often, in this process, it was taken back since it diverged."""
        sides = self.synthetic, self.real
        self._oversight = Oversight(self.config, *sides, self.bank, self.state)
        asked = self.config.training.game
        if self.state.step > asked:
            raise ConfigError(
                f"{out} has done {self.state.step} steps, more than the {asked} now asked for"
            )
        if self.state.step < asked:
            self.state.unteach()  # a run that goes on for longer
        same = json.dumps([self.config.to_builtins(), self.provenance()])
        self.ranks.agree("settings, data or versions", same)

    @property
    def total(self) -> int:
        """Steps of the whole run, warm-ups and those of a student included."""
        return self.config.training.total

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the data of either side."""
        return {"synthetic": self.synthetic.fingerprint, "real": self.real.fingerprint}

    def steps(self, stop: Callable[[], bool] | None = None) -> Iterator[Step]:
        """Train; saves every `SAVE_EVERY` steps, at the end, and when the caller stops iterating.

        Where training diverges, the last state saved is gone back to with lower rates, so that
        numbers of steps come again.

        Args:
            stop: asked after each step, whether to save and end. Of several ranks one that wants it
                is enough; of these none may just stop iterating, as the others could not save.

        Raises:
            ConfigError: another training is at work in the folder, or has been meanwhile.
            TrainingError: it has diverged too often, or another rank is lost; the files keep the
                last save.
            OutputError: the folder cannot be written.
        """
        with alone_in(self.out, "training") if self.ranks.leads else contextlib.nullcontext():
            yield from self._steps(stop)

    def _steps(self, stop: Callable[[], bool] | None) -> Iterator[Step]:
        if self.ranks.leads:
            if self._found != written(self.out):
                raise ConfigError(
                    f"another training has written to {self.out} since this one was prepared: go "
                    "on with --resume, or choose another --out"
                )
            write_info(self.out, self.config, self.inputs, self.fingerprints, self.licence)
            self._found = written(self.out)
        first = self.state.number + 1
        self._notify("simgan_training_started", config=self.config, first_step=first)
        reason = ""
        try:
            for step in self._steady():
                self._notify("simgan_training_step", step=step, preview=self.preview)
                if step.number % SAVE_EVERY == 0:
                    self.save()
                self._look(step)
                yield step
                if self.ranks.any(stop is not None and stop()):
                    reason = "interrupted"
                    break
            reason = reason or "finished"
        except GeneratorExit:  # the caller stops between two steps
            reason = "interrupted" if self.ranks.world == 1 else "left alone"
            raise
        except BaseException as error:  # in the midst of a step: what it has left is not to be kept
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            if reason in ("finished", "interrupted") and not self.state.is_finite():
                reason = "a weight is not finite: the last save is kept"
            elif reason in ("finished", "interrupted"):
                self.save()
            self._notify("simgan_training_ended", reason=reason, preview=self.preview)

    @property
    def keeps_earlier(self) -> bool:
        """Whether what lies in the folder is a student of a shorter run, and its teacher, which
        stay until the student has learned anew."""
        return self.state.kept is self.state.averaged and (self.out / TEACHER).exists()

    def save(self) -> None:
        """Write the state and the refiner, each whole or not at all; all ranks must call it.

        A kill between the two leaves a refiner that is older than the state, which is what counts.

        Raises:
            OutputError: the folder cannot be written.
        """
        tensors = self.state.tensors(of_all=True)
        if not self.ranks.leads:
            return
        header = {"step": self.state.number, "shares": self.state.shares}
        checkpoint.save_state(self.out / STATE, tensors, header)
        self._found = written(self.out)
        kept, teacher = self.state.kept, self.state.averaged
        if self.keeps_earlier:
            return
        if kept is teacher:
            files = {REFINER: (teacher, self.config)}
        else:
            files = {TEACHER: (teacher, self.config), REFINER: (kept, self.config.of_student())}
        about = self.synthetic.channels, self.bank
        for name, (network, config) in files.items():
            saved = checkpoint.Checkpoint(network, *about, config, self.provenance())
            checkpoint.save_checkpoint(self.out / name, saved)

    def preview(self) -> PilImage.Image:
        """Synthetic over refined over real, by what would now be kept; no contrast is stretched."""
        network, tone = self.state.kept, self.config.tone
        with at_rest(network):
            refiner = ImageRefiner(
                network,
                self.synthetic.channels,
                self.bank,
                tone.match,
                tone.share,
                device=self.device,
                white=self.config.data.white,
            )
            return preview(refiner, self.synthetic.images, self.real.images)

    def provenance(self) -> dict[str, Any]:
        """Where the refiner comes from, for its header."""
        sides = {"synthetic": self.synthetic, "real": self.real}
        return provenance(self.state, self.config.training.seed, sides, self.licence)

    def _steady(self) -> Iterator[Step]:
        """The steps of `train`, taken again from the last good state where they diverge."""
        good = LastGood(self.state, self.config.training)
        while True:
            try:
                for step in self._train():
                    ends = self.config.training.game, self.total
                    if step.number % SAVE_EVERY == 0 or step.number in ends:
                        good.hold()
                    yield step
                return
            except DivergenceError as error:
                rollback = good.go_back(error)
            self.rollbacks.append(rollback)
            self.save()
            self._notify("simgan_training_rollback", rollback=rollback)

    @functools.cached_property
    def _crops(self) -> tuple[data.Crops, data.Crops]:
        """Of the synthetic and of the real side, the same for all that is trained anew."""
        config, training = self.config.data, self.config.training
        seeds, size = (training.seed * 2, training.seed * 2 + 1), training.batch_size
        match = self.config.tone.match == "before"
        resident = None if match else data.Resident.of(self.synthetic, config, self.device)
        # To see which tone an image would take costs time, where no network is shown it.
        is_shown = match or any(map(takes_reference, self.state.networks))
        bank = self.bank if is_shown else None
        synthetic = data.Crops(
            self.synthetic, config, size, seeds[0], bank, match, resident=resident
        )
        real = data.Crops(
            self.real,
            config,
            size,
            seeds[1],
            own_tone=takes_reference(self.state.discriminator),
            candidates=config.alike if self.real.is_held else 1,
            resident=data.Resident.of(self.real, config, self.device),
        )
        return synthetic, real

    def _train(self) -> Iterator[Step]:
        synthetic, real = self._crops
        sides = (
            synthetic.batches(self.state.synthetic_batches),
            real.batches(self.state.real_batches),
        )
        self._fetch(*sides)
        for step in train(
            self.state.refiner,
            self.state.discriminator,
            self.loss,
            self.regularization,
            *sides,
            self.config.training,
            self.state,
        ):
            self._oversight.hold_labels(step)
            yield step
            self._fetch(*sides)

    def _fetch(self, *sides: data.Batches) -> None:
        """Make the next step's batches: an image that cannot be read ends the run between steps."""
        training = self.config.training
        if self.state.number >= self.total:
            return
        try:
            for side in sides:
                side.fetch(training.refiner_updates + training.discriminator_updates)
        except DataError as error:
            if self.ranks.world > 1 or not self.state.is_finite():
                raise
            self.save()
            raise DataError(
                f"{error}; saved after step {self.state.number}: mend the file, then --resume"
            ) from None

    def _look(self, step: Step) -> None:
        """Look for what is wrong: now and then in the game, at its end, and at a student's."""
        played = self.state.step - self.config.training.warmup
        is_due = step.number % SAVE_EVERY == 0 or played == self.config.training.steps
        if step.phase == "student":
            is_due = step.number == self.total
        if not is_due or played <= 0 or not self.ranks.leads:
            return
        self.alarms = self._oversight.look(played)
        for alarm in self.alarms:
            self._notify("simgan_training_alarm", step=step, alarm=alarm)

    def _notify(self, hook: str, **arguments: Any) -> None:
        if self.ranks.leads:
            plugins.registry().notify(hook, out=self.out, **arguments)

    def _start(self) -> TrainingState:
        torch.manual_seed(self.config.training.seed)
        channels = self.synthetic.channels
        # All is made on the CPU, so that a seed gives the same weights on every device.
        refiner = build_network("refiner", self.config.refiner, channels)
        discriminator = build_network("discriminator", self.config.discriminator, channels)
        terms = build_terms(self.config, refiner, channels)
        training, student = self.config.training, None
        parts = [refiner, discriminator, terms]
        if training.student_steps:
            student = build_student(self.config, refiner, channels)
            parts.append(student)
        for part in parts:
            if takes_reference(part) and (self.bank is None or self.bank.channels < channels):
                raise ConfigError(
                    "takes_reference needs tones of real photos, of each channel: set tone.photos, "
                    "and data.channels to 1 or 3"
                )
            part.to(self.device)
        return TrainingState(refiner, discriminator, training, self.ranks, terms, student)
