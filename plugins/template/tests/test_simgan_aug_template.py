"""The refiner keeps the contract, is found where it is installed, trains and refines."""

import numpy as np
import pytest
from simgan_aug_template import TemplateRefiner

from simgan_aug import ImageRefiner, plugins
from simgan_aug.testing import refiner_checks, train_briefly


@pytest.mark.parametrize("check", refiner_checks(TemplateRefiner, features=8))
def test_it_keeps_the_contract(check):
    check()


def test_it_is_found_by_its_name():
    assert plugins.provider("refiner", "template")[0] == "simgan-aug-template"


def test_it_trains_and_refines(tmp_path):
    file = train_briefly(tmp_path, refiner={"name": "template", "features": 8})
    image = np.full((31, 45, 3), 90, np.uint8)

    refined = ImageRefiner.load(file)(image)

    assert refined.shape == image.shape
    assert not np.array_equal(refined, image)
