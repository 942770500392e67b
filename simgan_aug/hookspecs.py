"""The whole plugin contract.

A plugin is a module with functions of these names, marked `@simgan_aug.hookimpl`, that an installed
distribution offers under the entry point group "simgan_aug". Arguments and hooks are only ever
added.

What a part must offer:

- A *refiner* is an `nn.Module` from (B, C, H, W) in [-1, 1] to the same shape, for every H and W.
  Its factory takes `channels` and the options of its table. What it may declare about itself
  (receptive field, noise, reference) is listed in `simgan_aug.networks.contract`.
- A *discriminator* is an `nn.Module` from (B, C, H, W) in [-1, 1] to (B, 1, h, w) unbounded logits
  of "refined". Its factory takes `channels` and the options of its table.
- A *loss* has the two methods of `simgan_aug.losses.AdversarialLoss`; its factory takes the options
  of its table.
- A *regularization* is a further term that holds the refined image to the synthetic one: a callable
  (refiner, refined, synthetic, weights) -> scalar, the mean over images of (B, C, H, W) in [-1, 1];
  `weights` is (B, 1, H, W), how much a pixel's change counts, or None. It is chosen, weighed and
  given options by `[[regularization.terms]]`. Its factory takes the options of that table, and, if
  its signature names them, `channels` and `refiner`: the network that is to be held, to look at but
  not to keep. If it is an `nn.Module`, its weights train with the refiner's, at the same rate, and
  are saved with the state of the training, but not in the refiner file. It may draw from torch's
  generator, which is seeded for each call. What it adds is reported as "regularization/NAME".
- A *checkpoint* is a trained refiner that a distribution ships: a function without arguments that
  gives the path of its file. Its name can stand wherever the path of a refiner file can.
- A *feature transform* psi is a function from (B, C, H, W) in [-1, 1] to (B, F, h, w), itself and
  not a factory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pluggy

VERSION = 1
"""Of this contract; a later version understands plugins of every earlier one."""

hookspec = pluggy.HookspecMarker("simgan_aug")
hookimpl = pluggy.HookimplMarker("simgan_aug")


@hookspec
def simgan_register_refiners() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Refiner factories by name."""


@hookspec
def simgan_register_discriminators() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Discriminator factories by name."""


@hookspec
def simgan_register_losses() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Adversarial loss factories by name."""


@hookspec
def simgan_register_regularizations() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Factories of further terms of regularization by name."""


@hookspec
def simgan_register_feature_transforms() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Feature transforms psi by name."""


@hookspec
def simgan_register_checkpoints() -> Mapping[str, Callable[[], Path]]:  # type: ignore[empty-body]
    """Trained refiners that come with the distribution: functions giving their files, by name."""


@hookspec
def simgan_register_gates() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Quality gates by name."""


@hookspec
def simgan_register_sources() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Image sources by scheme."""


@hookspec
def simgan_register_commands() -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Click commands by name."""


@hookspec
def simgan_register_spaces() -> Mapping[str, Callable[[], Any]]:  # type: ignore[empty-body]
    """Feature spaces by name."""


@hookspec
def simgan_training_started(out: Path, config: Any, first_step: int) -> None:
    """A run begins or goes on.

    Args:
        out: the run's folder; identifies the run in the other hooks.
        config: `simgan_aug.config.Config`.
        first_step: the number that the first step will have; more than 1 in a resumed run.
    """


@hookspec
def simgan_training_step(out: Path, step: Any, preview: Callable[[], Any]) -> None:
    """A step has ended. It is called after each step: log only now and then.

    Args:
        out: the run's folder.
        step: `simgan_aug.training.Step`.
        preview: draws a sheet (synthetic over refined over real, a `PIL.Image`) with the present
            average.
    """


@hookspec
def simgan_training_alarm(out: Path, step: Any, alarm: Any) -> None:
    """Something has gone wrong; called for each such thing, as often as it is looked for and found.

    Args:
        out: the run's folder.
        step: `simgan_aug.training.Step` after which it was found.
        alarm: `simgan_aug.alarms.Alarm`: name, value, limit, and a message that says what to turn.
    """


@hookspec
def simgan_training_rollback(out: Path, rollback: Any) -> None:
    """A run has diverged and was taken back; steps after that come again, with lower rates.

    Args:
        out: the run's folder.
        rollback: `simgan_aug.rollback.Rollback`: the step after which it goes on, what is left of
            the learning rates, and the reason.
    """


@hookspec
def simgan_training_ended(out: Path, reason: str, preview: Callable[[], Any]) -> None:
    """A run has ended.

    Args:
        out: the run's folder.
        reason: "finished", "interrupted", or the error that ended it.
        preview: as in `simgan_training_step`.
    """
