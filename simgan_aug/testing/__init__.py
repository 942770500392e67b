"""The conformance kit: holds a part of a plugin to all that the contract asks of its kind.

A test of a plugin is one call:

    from simgan_aug.testing import check_refiner

    def test_it_keeps_the_contract():
        check_refiner(MyRefiner, features=8)

or, to see each check by its name, one parametrized test:

    from simgan_aug.testing import refiner_checks

    @pytest.mark.parametrize("check", refiner_checks(MyRefiner, features=8))
    def test_it_keeps_the_contract(check):
        check()

Options go to the factory; choose them small, for the checks call it some hundred times. A check is
an assertion, whose message says what was expected, what came, what it usually comes of, and the
remedy. Checks go from the plain to the subtle, so mend the first that fails first. Weights that are
0 at the start, as those of a layer that makes an untrained refiner the identity, are drawn at
random: nothing would show otherwise. pytest is not needed.

What is checked of a refiner (`contract.py` of `simgan_aug.networks` has what it may declare):

    weights              something to train; every tensor a parameter or a buffer
    sizes                any height and width, 1x1 up, and every number of channels
    dtype                float32 in, float32 out
    finite, autocast     no NaN, of black and white images and in bfloat16 either
    input_untouched      nothing in place
    determinism          no randomness but `noise`: in training neither (no dropout)
    global_random_state  nobody else's draws are shifted
    batch_independence   an image alone as in a batch (no BatchNorm)
    gradients            to the input and to every weight
    state_round_trip     state_dict, as safetensors, into a fresh network: the same bits
    memory_format        channels_last memory, in which inference calls it
    device               the same on a GPU, where there is one
    recordable           nothing that a GPU could not record, if that is declared
    change_limit         the declared bound on the change, whatever the weights
    receptive_field      nothing outside of it matters; a much too wide one is warned of
    multiple             the declared grid is the true one
    tiles                `ImageRefiner` in tiles equals the whole image, to 0 grey levels
    export               `torch.export` at a fixed size

Of a discriminator: as far as it applies the same, and `logit_map`, `unbounded`. Of a loss: scalars,
gradients, direction (1 is refined), shares, ... Of a feature transform, a term of regularization
and a gate: see `features.py`, `terms.py` and `gates.py` here.

For the rest of a plugin's tests: `write_pair` writes a small pair of data sets, `train_briefly`
trains on it with any part and gives the refiner file; `offered` offers a module's parts as if it
were installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simgan_aug.losses import FeatureTransform
from simgan_aug.networks import UnshuffleRefiner
from simgan_aug.testing import discriminators, features, gates, losses, refiners, terms
from simgan_aug.testing.checks import Check, checks, run
from simgan_aug.testing.doubles import Pair, offered, small_config, train_briefly, write_pair
from simgan_aug.testing.subject import Subject

__all__ = [
    "Check",
    "Pair",
    "check_discriminator",
    "check_feature_transform",
    "check_gate",
    "check_loss",
    "check_refiner",
    "check_regularization",
    "discriminator_checks",
    "feature_transform_checks",
    "gate_checks",
    "loss_checks",
    "offered",
    "refiner_checks",
    "regularization_checks",
    "small_config",
    "train_briefly",
    "write_pair",
]

Factory = Callable[..., Any]


def refiner_checks(
    make: Factory, /, channels: tuple[int, ...] = (1, 3), **options: Any
) -> list[Check]:
    """Checks of a refiner.

    Args:
        make: its factory, called with `channels` and the options.
        channels: of images, each of which is tried.
        options: of the factory; small ones.
    """
    return checks("refiner", refiners.CLAIMS, Subject(make, channels, options))


def discriminator_checks(
    make: Factory, /, channels: tuple[int, ...] = (1, 3), **options: Any
) -> list[Check]:
    """Checks of a discriminator; arguments as those of `refiner_checks`."""
    subject = Subject(make, channels, options, discriminators.SMALLEST, is_refiner=False)
    return checks("discriminator", discriminators.CLAIMS, subject)


def loss_checks(make: Factory, /, **options: Any) -> list[Check]:
    """Checks of a loss; its factory is called with the options."""
    return checks("loss", losses.CLAIMS, losses.LossSubject(make, options))


def regularization_checks(
    make: Factory,
    /,
    channels: tuple[int, ...] = (1, 3),
    make_refiner: Factory = UnshuffleRefiner,
    **options: Any,
) -> list[Check]:
    """Checks of a further term of regularization.

    Args:
        make: its factory, called with the options, and with `channels` and `refiner` if its
            signature names them.
        channels: of images, each of which is tried.
        make_refiner: factory of the refiner that the term is tried with, called with `channels`.
        options: of the factory.
    """
    subject = terms.TermSubject(make, channels, options, make_refiner)
    return checks("regularization", terms.CLAIMS, subject)


def feature_transform_checks(
    psi: FeatureTransform, /, channels: tuple[int, ...] = (1, 3)
) -> list[Check]:
    """Checks of a feature transform, which is registered itself and not a factory of it."""
    return checks("feature transform", features.CLAIMS, features.FeatureSubject(psi, channels))


def gate_checks(gate: gates.Gate, /) -> list[Check]:
    """Checks of a quality gate: (old, new, annotations) -> reasons against the new image."""
    return checks("gate", gates.CLAIMS, gate)


def check_refiner(make: Factory, /, channels: tuple[int, ...] = (1, 3), **options: Any) -> None:
    """Hold a refiner to the contract; arguments as those of `refiner_checks`.

    Raises:
        AssertionError: it breaks it; says how, and what helps.
    """
    run(refiner_checks(make, channels, **options))


def check_discriminator(
    make: Factory, /, channels: tuple[int, ...] = (1, 3), **options: Any
) -> None:
    """The same for a discriminator."""
    run(discriminator_checks(make, channels, **options))


def check_loss(make: Factory, /, **options: Any) -> None:
    """The same for a loss; see `loss_checks`."""
    run(loss_checks(make, **options))


def check_regularization(make: Factory, /, **arguments: Any) -> None:
    """The same for a term of regularization; arguments as those of `regularization_checks`."""
    run(regularization_checks(make, **arguments))


def check_feature_transform(psi: FeatureTransform, /, channels: tuple[int, ...] = (1, 3)) -> None:
    """The same for a feature transform."""
    run(feature_transform_checks(psi, channels))


def check_gate(gate: gates.Gate, /) -> None:
    """The same for a quality gate."""
    run(gate_checks(gate))
