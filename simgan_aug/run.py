"""The training job: a folder, from which it can be resumed, around `simgan_aug.training.train`.

RUN/refiner.safetensors   the averaged refiner, all that inference needs
RUN/state.safetensors     what --resume goes on from
RUN/run.json              config, inputs and their fingerprints
RUN/metrics.jsonl         one line of losses every `LOG_EVERY` steps
RUN/alarms.jsonl          one line for each thing found wrong, every `SAVE_EVERY` steps
RUN/samples/*.png         synthetic over refined over real
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PilImage
from torch import Tensor, nn

from simgan_aug import checkpoint, data, plugins
from simgan_aug.alarms import Alarm, Watch
from simgan_aug.config import Config, parse
from simgan_aug.data.handful import take_handful
from simgan_aug.data.sources import read_boxes
from simgan_aug.devices import resolve_device
from simgan_aug.errors import CheckpointError, ConfigError, DataError, PluginError
from simgan_aug.files import write_atomically
from simgan_aug.folders import check_apart, check_writable
from simgan_aug.inference import ImageRefiner
from simgan_aug.losses import edge_direction, self_regularization
from simgan_aug.networks.contract import takes_reference
from simgan_aug.preview import preview
from simgan_aug.state import TrainingState
from simgan_aug.training import Regularization, Step, train

REFINER, STATE, INFO = "refiner.safetensors", "state.safetensors", "run.json"
SAVE_EVERY = 200
"""Steps between two saves, and between two looks for alarms."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the two sides of a run lie."""

    annotations: Path
    """COCO file of the synthetic images."""
    images: Path
    """Folder that its `file_name`s are relative to."""
    real: Path
    """Folder of real photos; labels are never read."""


class Run:
    """One training run: read the data, build the parts, yield steps, save.

    Args:
        config: what to train and how.
        inputs: see `Inputs`.
        out: folder of the run; it must not hold a run yet, unless `resume`.
        device: "auto" or what `torch.device` takes.
        resume: go on from the folder's last save.
        licence: of the data, for the provenance of the refiner.

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
    ) -> None:
        self.config, self.inputs, self.out, self.licence = config, inputs, out, licence
        self.device = resolve_device(device)
        if resume != (out / INFO).exists():
            way_out = (
                "start without --resume"
                if resume
                else "go on with --resume, or choose another --out"
            )
            raise ConfigError(f"{out} holds {'no' if resume else 'a'} training run: {way_out}")
        for source in (inputs.images, inputs.real):
            check_apart(source, out)
        check_writable(out)
        self.loss = plugins.build("loss", config.loss.name, **config.loss.options)
        self.regularization = regularization(config)
        seed = config.training.seed
        self.synthetic = data.read_synthetic(
            inputs.annotations, inputs.images, config.data, config.regularization.labels, seed
        )
        self.real = data.read_real(inputs.real, config.data, self.synthetic, seed)
        self.bank = data.tone_bank(self.real, config.tone.photos, seed)
        self.state = self._start()
        if resume and (out / STATE).exists():  # else it was killed before its first save
            self._restore()
        self.alarms: list[Alarm] = []
        """What was found wrong when it was last looked for."""
        self._watch = self._watched()
        if self.state.step > self.total:
            raise ConfigError(
                f"{out} has done {self.state.step} steps, more than the {self.total} now asked for"
            )

    @property
    def total(self) -> int:
        """Steps of the whole run, warm-ups included."""
        training = self.config.training
        return training.refiner_warmup + training.discriminator_warmup + training.steps

    def steps(self) -> Iterator[Step]:
        """Train; saves every `SAVE_EVERY` steps, at the end, and when the caller stops iterating.

        Raises:
            TrainingError: a loss is not finite; the files keep the last save.
            OutputError: the folder cannot be written.
        """
        self._write_info()
        plugins.registry().notify(
            "simgan_training_started",
            out=self.out,
            config=self.config,
            first_step=self.state.step + 1,
        )
        reason = ""
        try:
            for step in self._train():
                plugins.registry().notify(
                    "simgan_training_step", out=self.out, step=step, preview=self.preview
                )
                if step.number % SAVE_EVERY == 0:
                    self.save()
                if step.number % SAVE_EVERY == 0 or step.number == self.total:
                    self._look(step)
                yield step
            reason = "finished"
        except GeneratorExit:  # the caller stops between two steps
            reason = "interrupted"
            raise
        except BaseException as error:  # in the midst of a step: what it has left is not to be kept
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            if reason in ("finished", "interrupted"):
                self.save()
            plugins.registry().notify(
                "simgan_training_ended", out=self.out, reason=reason, preview=self.preview
            )

    def save(self) -> None:
        """Write the refiner and the state; each whole or not at all.

        Raises:
            OutputError: the folder cannot be written.
        """
        checkpoint.save_state(self.out / STATE, self.state.tensors(), {"step": self.state.step})
        saved = checkpoint.Checkpoint(
            self.state.averaged, self.synthetic.channels, self.bank, self.config, self.provenance()
        )
        checkpoint.save_checkpoint(self.out / REFINER, saved)

    def preview(self) -> PilImage.Image:
        """Synthetic over refined over real, with the present average; no contrast is stretched."""
        network, training = self.state.averaged, self.state.averaged.training
        refiner = ImageRefiner(
            network, self.synthetic.channels, self.bank, self.config.tone.match, device=self.device
        )
        picture = preview(refiner, self.synthetic.images, self.real.images)
        network.train(training).requires_grad_(True)
        return picture

    def provenance(self) -> dict[str, Any]:
        """Where the refiner comes from, for its header."""
        return {
            "steps": self.state.step,
            "seed": self.config.training.seed,
            "synthetic": {
                "sha256": self.synthetic.fingerprint,
                "used": len(self.synthetic.images),
                "listed": self.synthetic.listed,
            },
            "real": {
                "sha256": self.real.fingerprint,
                "used": len(self.real.images),
                "listed": self.real.listed,
            },
            "versions": {name: _version(name) for name in ("simgan-aug", "torch", "numpy")}
            | {"python": platform.python_version()},
            "licence": self.licence,
        }

    def _train(self) -> Iterator[Step]:
        training = self.config.training
        seeds = (training.seed * 2, training.seed * 2 + 1)
        size, match = training.batch_size, self.config.tone.match
        synthetic = data.Crops(self.synthetic, self.config.data, size, seeds[0], self.bank, match)
        paired = takes_reference(self.state.discriminator)
        real = data.Crops(self.real, self.config.data, size, seeds[1], own_tone=paired)
        return train(
            self.state.refiner,
            self.state.discriminator,
            self.loss,
            self.regularization,
            synthetic.batches(self.state.synthetic_batches),
            real.batches(self.state.real_batches),
            training,
            self.state,
        )

    def _watched(self) -> Watch:
        """A watch over this run; its handful is the same when the run is resumed."""

        def refine(network: nn.Module, images: list[Any]) -> list[Any]:
            # The handful has its tone already.
            refiner = ImageRefiner(
                network, self.synthetic.channels, self.bank, match=False, device=self.device
            )
            refined: list[Any] = refiner(images)
            return refined

        boxes = read_boxes(self.inputs.annotations, self.synthetic.names)
        paired = takes_reference(self.state.discriminator)
        handful = take_handful(self.synthetic, self.real, boxes, self.config, self.bank, paired)
        return Watch(handful, refine)

    def _look(self, step: Step) -> None:
        """Look for what is wrong, once the two networks play against each other."""
        if step.phase != "adversarial":
            return
        steps = step.number - (self.total - self.config.training.steps)
        self.alarms = self._watch.look(self.state, steps)
        for alarm in self.alarms:
            plugins.registry().notify("simgan_training_alarm", out=self.out, step=step, alarm=alarm)

    def _start(self) -> TrainingState:
        torch.manual_seed(self.config.training.seed)
        channels = self.synthetic.channels
        # Networks are made on the CPU, so that a seed gives the same weights on every device.
        refiner = _build("refiner", self.config.refiner, channels).to(self.device)
        discriminator = _build("discriminator", self.config.discriminator, channels).to(self.device)
        for player in (refiner, discriminator):
            if takes_reference(player) and self.bank is None:
                raise ConfigError("takes_reference needs tones of real photos: set tone.photos")
        return TrainingState(refiner, discriminator, self.config.training)

    def _restore(self) -> None:
        tensors, _ = checkpoint.load_state(self.out / STATE)
        info = read_info(self.out)
        for side, source in (("synthetic", self.synthetic), ("real", self.real)):
            if info["fingerprints"][side] != source.fingerprint:
                raise DataError(
                    f"the {side} data has changed since {self.out} was started; "
                    "begin a new run in another --out"
                )
        try:
            self.state.load(tensors)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{self.out / STATE}: belongs to another config: {error}"
            ) from None

    def _write_info(self) -> None:
        info = {
            "config": self.config.to_builtins(),
            "inputs": {
                name: str(path.resolve()) for name, path in dataclasses.asdict(self.inputs).items()
            },
            "fingerprints": {
                "synthetic": self.synthetic.fingerprint,
                "real": self.real.fingerprint,
            },
            "licence": self.licence,
        }
        write_atomically(self.out / INFO, (json.dumps(info, indent=2) + "\n").encode())


def read_info(out: Path) -> dict[str, Any]:
    """What `run.json` of a run says.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    try:
        info: dict[str, Any] = json.loads((out / INFO).read_text(encoding="utf-8"))
        parse(info["config"], source=str(out / INFO))
        Inputs(**{name: Path(path) for name, path in info["inputs"].items()})
        if set(info["fingerprints"]) != {"synthetic", "real"}:
            raise KeyError("fingerprints")
    except OSError:
        raise CheckpointError(
            f"{out}: no training run in it (no {INFO}); start one without --resume"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{out / INFO}: damaged: {type(error).__name__}: {error}") from None
    return info


def regularization(config: Config) -> Regularization:
    """lambda times the self-regularization that a config describes."""
    settings = config.regularization
    psi = (
        None
        if settings.features == "identity"
        else plugins.registry().find("feature transform", settings.features).make
    )

    def term(refined: Tensor, synthetic: Tensor, weights: Tensor | None) -> Tensor:
        change = settings.weight * self_regularization(
            refined, synthetic, psi, weights, settings.reduction
        )
        if settings.contours:
            moved = self_regularization(refined, synthetic, edge_direction)
            change = change + settings.contours * moved
        return change

    return term


def check_parts(config: Config, source: str) -> None:
    """Build the parts of a config once, so that a mistake is found before any data is read.

    Raises:
        ConfigError: an unknown name or option, or a refused value; names `source` and table.
    """
    channels = config.data.channels or 3
    checks: dict[str, Callable[[], Any]] = {
        "refiner": lambda: _build("refiner", config.refiner, channels),
        "discriminator": lambda: _build("discriminator", config.discriminator, channels),
        "loss": lambda: plugins.build("loss", config.loss.name, **config.loss.options),
        "regularization": lambda: regularization(config),
    }
    for table, check in checks.items():
        try:
            check()
        except (ConfigError, PluginError) as error:
            raise ConfigError(f"{source}: [{table}]: {error}") from None


def _build(kind: str, part: Any, channels: int) -> nn.Module:
    if "channels" in part.options:
        raise ConfigError(f"[{kind}]: channels comes from the data; set data.channels instead")
    network: nn.Module = plugins.build(kind, part.name, channels=channels, **part.options)
    return network


def _version(distribution: str) -> str:
    from importlib import metadata

    return metadata.version(distribution)
