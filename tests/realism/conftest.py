"""What the tests of realism share."""

import numpy as np
import pytest
import torchvision_ops

torchvision_ops.install()


@pytest.fixture(scope="session")
def textures():
    """Makes images of a level and a grain, each structured like no other."""

    def make(count, seed, tint=0, grain=10, shape=(24, 24, 3)):
        rng = np.random.default_rng(seed)
        flat = 100 + tint + rng.normal(0, 12, (count, 1, 1, 3))[..., : shape[-1]]
        noise = rng.normal(0, grain, (count, *shape))
        return list((flat + noise).clip(0, 255).astype(np.uint8))

    return make
