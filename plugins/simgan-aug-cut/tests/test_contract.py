"""The parts of CUT keep the contract of simgan-aug."""

import pytest
from simgan_aug_cut import CutPatchGAN, CutResNet, PatchNCE

from simgan_aug.testing import discriminator_checks, refiner_checks, regularization_checks


@pytest.mark.parametrize("check", refiner_checks(CutResNet, features=4, blocks=2), ids=str)
def test_the_refiner_keeps_the_contract(check):
    check()


@pytest.mark.parametrize("check", discriminator_checks(CutPatchGAN, features=4), ids=str)
def test_the_discriminator_keeps_the_contract(check):
    check()


@pytest.mark.parametrize("check", regularization_checks(PatchNCE, places=16), ids=str)
def test_the_term_keeps_the_contract(check):
    check()


def own(channels):
    return CutResNet(channels, features=4, blocks=2)


@pytest.mark.parametrize(
    "check",
    regularization_checks(PatchNCE, make_refiner=own, flip_equivariance=True),
    ids=str,
)
def test_the_term_keeps_it_with_the_refiner_of_cut(check):
    check()
