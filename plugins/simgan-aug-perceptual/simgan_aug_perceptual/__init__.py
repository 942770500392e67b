"""Features of a network that knows ImageNet: a psi for training, a space for realism."""

from simgan_aug import hookimpl
from simgan_aug_perceptual.features import imagenet, perceptual

__all__ = ["imagenet", "perceptual"]


@hookimpl
def simgan_register_feature_transforms():
    """Early features, normalised."""
    return {"perceptual": perceptual}


@hookimpl
def simgan_register_spaces():
    """What the last layer gets of a whole image."""
    return {"imagenet": imagenet}
