"""The whole plugin contract: what a plugin may offer, and when it is called.

A plugin is a module that an installed distribution names under the entry point group "simgan_aug",
with functions of the names below, each marked with `@simgan_aug.hookimpl`:

    # pyproject.toml                          # my_plugin.py
    [project.entry-points.simgan_aug]         @simgan_aug.hookimpl
    mine = "my_plugin"                        def simgan_register_refiners():
                                                  return {"mine": MyRefiner}

The hooks that register are called once in a process, all of them, when a part of any kind is first
looked for. Each returns a mapping from names to parts and has no other effect. A name chooses the
part wherever one of ours is chosen: in TOML, in a refiner file, on the command line. It is offered
by one plugin: of two, the later one by the name of its entry point is kept apart.

A plugin is kept apart as a whole, named with its fault by a warning and by `simgan-aug plugins`, if
it cannot be imported, has a hook of another name or none, returns something else than is asked for,
or raises. All others work on. SIMGAN_AUG_DISABLE_PLUGINS (1, or names) leaves plugins out, with
SIMGAN_AUG_STRICT_PLUGINS=1 one that is broken is an error.

A *factory* is called anew for each part that is made, with the options of the part's TOML table,
which are checked against its signature and its annotations (int, float, str, bool, list, tuple,
dict). A TypeError or ValueError of it is shown as a mistake in the table.

Versions; hooks and arguments are only ever added, and a hook takes those arguments that it names:

1   refiners, discriminators, losses, feature transforms, checkpoints; observers of training
2   regularizations, gates, sources, spaces, commands
3   presets

A hook of a later version, marked with `@simgan_aug.hookimpl(optionalhook=True)`, is passed over by
an earlier simgan_aug instead of being a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pluggy

VERSION = 3
"""Of this contract; a later version understands plugins of every earlier one."""

hookspec = pluggy.HookspecMarker("simgan_aug")
hookimpl = pluggy.HookimplMarker("simgan_aug")


@hookspec
def simgan_register_refiners() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Factories of refiners, `nn.Module`s from (B, C, H, W) in [-1, 1] to the same shape.

    They take every H and W; what one may declare about itself (receptive field, noise, reference)
    is listed in `simgan_aug.networks.contract`. Chosen by `[refiner]`; the factory takes `channels`
    and the options of that table. A refiner file keeps the name, the distribution and its version,
    and says so where they are missing.
    """


@hookspec
def simgan_register_discriminators() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Factories of discriminators, `nn.Module`s from (B, C, H, W) in [-1, 1] to (B, 1, h, w).

    One of several scales gives their logits in one row: `torch.cat([m.flatten(2) for m in maps],
    2)[:, :, None]` is (B, 1, 1, all of them).

    What comes out are unbounded logits of "refined". One that declares `takes_reference` is given
    the tone of each image as further channels (`simgan_aug.networks.contract.with_tone`). If it
    declares `independent`, an image's logits depend on that image alone, and it may be shown real
    and refined ones in one batch; if `recordable`, see `simgan_aug.networks.contract`. Chosen by
    `[discriminator]`; the factory takes `channels` and the options of that table.
    """


@hookspec
def simgan_register_losses() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Factories of adversarial losses, with the two methods of `simgan_aug.losses.AdversarialLoss`.

    It is neither trained nor saved: it has no weights, and what it gives depends on nothing but
    what it is called with. One may declare itself `recordable` (`simgan_aug.networks.contract`).
    Chosen by `[loss]`; the factory takes the options of that table.
    """


@hookspec
def simgan_register_regularizations() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Factories of further terms that hold the refined image to the synthetic one.

    A term is a callable (refiner, refined, synthetic, weights) -> scalar: the mean over images (B,
    C, H, W) in [-1, 1]; `weights` is (B, 1, H, W), how much a pixel's change counts, or None. It is
    called in each update of the refiner, for each share of the batch, and its value times its
    weight is added to the loss; it is reported as "regularization/NAME". One that is no scalar
    tensor is a `PluginError`, one that is not finite is taken for divergence. Being means, terms do
    not go with the reduction "paper_sum". It may draw from torch's generators, which are seeded for
    each call and set back after it.

    Chosen by `[[regularization.terms]]`, with a `name` and a `weight`. The factory takes the other
    options of that table and, if its signature names them, `channels` and `refiner`: the network
    that is to be held, on the CPU, to look at and not to keep.

    If a term is an `nn.Module`, its weights train with the refiner's, by the same optimizer at the
    same rate, and are saved with the state of the training; none is in the refiner file. It stays
    in the mode (train, eval) that it is made in.
    """


@hookspec
def simgan_register_feature_transforms() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Feature transforms psi: functions from (B, C, H, W) in [-1, 1] to (B, F, h, w).

    A function itself, not a factory; `simgan_aug.graphs.recordable` declares one to be so. Chosen
    by `regularization.features`, and as a feature space of `simgan-aug realism`.
    """


@hookspec
def simgan_register_checkpoints() -> Mapping[str, Callable[[], Path]]:  # type: ignore[empty-body]
    """Trained refiners that the distribution ships: functions that give the path of their file.

    Such a name can stand wherever the path of a refiner file can. The function is called each time
    that it does.
    """


@hookspec
def simgan_register_presets() -> Mapping[str, Callable[[], Path]]:  # type: ignore[empty-body]
    """Presets that the distribution ships: functions that give the path of a TOML file.

    The file states what differs from the preset "default"; it names no preset itself. Chosen by
    `--preset` of `train` and by the key `preset` of a TOML file. The function is called each time
    that it is; what is wrong with its file is a `ConfigError` that names preset and plugin.
    """


@hookspec
def simgan_register_gates() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Quality gates: functions (old, new, annotations) -> list of reasons against the new image.

    A function itself, not a factory. `old` and `new` are (H, W) or (H, W, C) arrays of the file's
    dtype, which it cannot write to, `annotations` a list of `simgan_aug.coco.Annotation`; the list
    is empty for an image that passes. Chosen by `--gate` of `refine` and `audit`, and by
    `simgan_aug.audit.Guard(gates=...)`.

    A guard asks it of each refined image as it would be saved, and again of what it has blended
    back, until audit and gates pass; the original itself is not asked about. So one image gets some
    ten calls at most, in any process, and the same image must get the same answer. A gate that
    raises, or returns something else, is an error of that image (`PluginError`) that names the
    gate; it never passes one.
    """


@hookspec
def simgan_register_sources() -> Mapping[str, Callable[[str], Any]]:  # type: ignore[empty-body]
    """Image sources by scheme: functions from what stands behind SCHEME: to the opened source.

    A source has `names`, a sequence of texts, and `content(index)`, the bytes of an image file; it
    may have `fingerprint`, a text that changes when the images do, else the names are held against
    those that a resumed run was begun with. `content` is called from several threads at once, in
    any order, as images are drawn. Chosen by `--synthetic SCHEME:REST` and `--real SCHEME:REST` of
    `train` and `realism`; such synthetic images have no labels. A scheme has two characters or
    more: small letters, digits, +, - and ., a letter first; and an existing file of that name goes
    before it. Whatever is raised is shown as a `DataError` that names source and image.
    """


@hookspec
def simgan_register_spaces() -> Mapping[str, Callable[[], Any]]:  # type: ignore[empty-body]
    """Feature spaces: functions without arguments that make one.

    A space is a callable from one image, (H, W) or (H, W, C) of the file's dtype
    (`simgan_aug.pixels.Pixels(image, 3).colour()` is (1, 3, H, W) in [0, 1]), to its features, a
    finite (F,) tensor or array, F alike for all. Chosen by `--features` of `realism` and `study`,
    before a feature transform of its name. Errors of simgan_aug (`DependencyError`: weights are
    missing) are passed on, others are a `PluginError` that names the space.
    """


@hookspec
def simgan_register_commands() -> Mapping[str, Any]:  # type: ignore[empty-body]
    """`click.Command`s by the name under which they are called: `simgan-aug NAME`.

    They are shown by `simgan-aug --help` after ours, whose names are taken. An int that one returns
    is the exit code, anything else is 0. Errors of simgan_aug and of click are shown as those of
    our own commands; any other ends it with code 1 and a line that names command and plugin, and
    with SIMGAN_AUG_TRACEBACK=1 where it was raised.
    """


@hookspec
def simgan_training_started(out: Path, config: Any, first_step: int) -> None:
    """A run begins or goes on.

    This and what follows observe a training (in the first of several processes) and return nothing.
    One that raises is warned of, and that hook of it is not called again for this run, which goes
    on.

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
