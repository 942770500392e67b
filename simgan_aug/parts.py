"""The parts that a config names, built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from simgan_aug import plugins
from simgan_aug.config import Config, Part
from simgan_aug.errors import ConfigError, PluginError
from simgan_aug.factories import takes
from simgan_aug.graphs import is_recordable, recordable
from simgan_aug.losses import AdversarialLoss, edge_direction, self_regularization
from simgan_aug.terms import Terms, check_own
from simgan_aug.training import Regularization

CONTOURS = "contours"
"""Name of the weight of contours among the scalars of a training's state."""


def build_network(kind: str, part: Part, channels: int) -> nn.Module:
    """A "refiner" or a "discriminator" for images of so many channels.

    Raises:
        PluginError: there is none of this name.
        ConfigError: an unknown option, or a refused value.
    """
    if "channels" in part.options:
        raise ConfigError(f"[{kind}]: channels comes from the data; set data.channels instead")
    network: nn.Module = plugins.build(kind, part.name, channels=channels, **part.options)
    return network


def build_student(config: Config, refiner: nn.Module, channels: int) -> nn.Module:
    """The student that a config describes.

    Args:
        refiner: that it is to learn from.
        channels: of their images.

    Raises:
        PluginError: there is no refiner of this name.
        ConfigError: an unknown option, or a refused value; or it asks for noise that its teacher
            is not given.
    """
    student = build_network("refiner", config.of_student().refiner, channels)
    theirs, own = (getattr(each, "noise_channels", 0) for each in (refiner, student))
    if own not in (0, theirs):
        raise ConfigError(
            f"a student is shown what its teacher is: set noise_channels of [student] to {theirs}, "
            f"that of [refiner], or to 0, not {own}"
        )
    return student


def build_loss(part: Part) -> AdversarialLoss:
    """The adversarial terms that a config names.

    Raises:
        PluginError: there is none of this name, or it has weights, which nobody would train.
        ConfigError: an unknown option, or a refused value.
    """
    loss: AdversarialLoss = plugins.build("loss", part.name, **part.options)
    if isinstance(loss, nn.Module) and any(each.requires_grad for each in loss.parameters()):
        raise PluginError(
            f"the loss {part.name!r} has weights, and a loss is neither trained nor saved: give "
            "them to the discriminator, or make it a term of regularization"
        )
    return loss


def regularization(config: Config, scalars: Mapping[str, float] | None = None) -> Regularization:
    """lambda times the self-regularization that a config describes.

    Args:
        scalars: of a training's state; the weight of contours is looked up there each time, under
            `CONTOURS`. None: it is that of the config.
    """
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
            contours = settings.contours if scalars is None else scalars[CONTOURS]
            moved = self_regularization(
                refined, synthetic, edge_direction, reduction=settings.reduction
            )
            change = change + contours * moved
        return change

    return recordable(term) if psi is None or is_recordable(psi) else term


def build_terms(config: Config, refiner: nn.Module, channels: int) -> Terms:
    """The further terms of regularization that a config names.

    Args:
        refiner: that they are to hold.
        channels: of its images.

    Raises:
        PluginError: there is none of a name, or one holds weights of the refiner.
        ConfigError: an unknown option, or a refused value.
    """
    given, terms = {"channels": channels, "refiner": refiner}, {}
    for term in config.regularization.terms:
        for name in given:
            if name in term.options:
                raise ConfigError(f"terms: {term.name!r}: {name} is no option; it is always given")
        make = plugins.registry().find("regularization", term.name).make
        wanted = {name: value for name, value in given.items() if takes(make, name)}
        part = plugins.build("regularization", term.name, **wanted, **term.options)
        terms[term.name] = term.weight, part
    check_own({name: term for name, (_, term) in terms.items()}, refiner)
    return Terms(terms)


def check_parts(config: Config, source: str) -> None:
    """Build the parts of a config once, so that a mistake is found before any data is read.

    Raises:
        ConfigError: an unknown name or option, or a refused value; names `source` and table.
    """
    channels = config.data.channels or 3
    checks: dict[str, Callable[[], Any]] = {
        "refiner": lambda: build_network("refiner", config.refiner, channels),
        "discriminator": lambda: build_network("discriminator", config.discriminator, channels),
        "loss": lambda: build_loss(config.loss),
        "regularization": lambda: (
            regularization(config),
            build_terms(config, checks["refiner"](), channels),
        ),
    }
    if config.training.student_steps:
        checks["student"] = lambda: build_student(config, checks["refiner"](), channels)
    for table, check in checks.items():
        try:
            check()
        except (ConfigError, PluginError) as error:
            raise ConfigError(f"{source}: [{table}]: {error}") from None
