"""`Refine` for torchvision's transforms v2 (0.21 and later).

    from torchvision.transforms import v2
    from simgan_aug.transforms.torchvision import Refine

    v2.Compose([Refine("run/refiner.safetensors", p=0.5), v2.RandomHorizontalFlip(), v2.ToImage()])

It needs a torchvision that goes with the installed torch.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from simgan_aug.errors import DependencyError, ImageError
from simgan_aug.pixels import bytes_of
from simgan_aug.shared import Refiner, as_refiner, check_cache, described
from simgan_aug.variety import Variety, check_probability, identity_of

try:
    from torchvision import tv_tensors
    from torchvision.transforms import v2
    from torchvision.transforms.v2._utils import is_pure_tensor
except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
    raise DependencyError(
        f"torchvision cannot be imported ({type(error).__name__}: {error}); install the one made "
        f"for torch {torch.__version__}: pip install 'simgan-aug[torchvision]', with the same "
        "--index-url that torch came from"
    ) from error

_TYPED = (tv_tensors.Image, tv_tensors.Video, PIL.Image.Image)
_MODES = ("L", "LA", "RGB", "RGBA")


class Refine(v2.Transform):  # type: ignore[misc]
    """Makes a synthetic image look real; boxes, masks and keypoints stay where they are.

    Place it first: it has been trained on whole renders, and a cache finds again what is not yet
    cropped. Images and videos of one sample are refined by one seed, all frames of a video in one
    form; images of a batch have seeds of their own. All else of a sample comes out as the same
    objects, and so does the image that is not refined. A tensor without a type is an image where
    torchvision takes it for one (so does `v2.ToImage`): give masks and boxes theirs. The network
    stays out of the host's `parameters()`, `state_dict()` and `train()`, and no gradient passes
    through it.

    Args:
        refiner: path of a refiner file, a name under which a plugin ships one, or an
            `ImageRefiner`.
        p: probability of refining a sample.
        strength: share of the change, in [0, 1]; or the two ends of a range to draw it from.
        device: of a refiner given by name: "auto" is the CPU in a worker; else see `SharedRefiner`.
        precision: of a refiner given by name; see `ImageRefiner`.
        backend: of a refiner given by name; see `ImageRefiner.load`.
        variants: refined forms that one image has; 0: a new one at every draw.
        cache: "memory" (of each worker) or a folder that workers share; needs `variants`, and a
            refiner given by name.
        cache_mb: MiB that the cache holds at most.

    Shape:
        (..., C, H, W) uint8, uint16, or floats in [0, 1]; or a PIL image in L, LA, RGB or RGBA.

    Raises:
        CheckpointError: there is no such refiner, or it cannot be used here.
        ConfigError: impossible settings.
        ImageError: at a call, an image of another kind, or one that torchvision overlooks.
    """

    _transformed_types = (*_TYPED, is_pure_tensor)

    def __init__(
        self,
        refiner: str | os.PathLike[str] | Refiner,
        p: float = 0.5,
        strength: float | tuple[float, float] = 1.0,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        backend: str | os.PathLike[str] = "torch",
        variants: int = 0,
        cache: str | os.PathLike[str] | None = None,
        cache_mb: int = 4096,
    ) -> None:
        check_probability(p)
        super().__init__()
        self._variety = Variety(strength, variants)
        check_cache(cache, variants)
        self._refiner = as_refiner(
            refiner,
            device=device,
            precision=precision,
            backend=backend,
            cache=cache,
            cache_mb=cache_mb,
        )
        # Public and plain, which is what the host's repr shows.
        self.refiner = described(refiner)
        self.p, self.strength, self.device, self.precision = p, strength, str(device), precision
        self.variants, self.cache_mb, self.backend = variants, cache_mb, os.fspath(backend)
        self.cache = None if cache is None else os.fspath(cache)

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse a sample whose image is a numpy array.

        torchvision would leave it as it is, and take the first tensor, a mask maybe, for the image.

        Raises:
            ImageError: says what the image should be.
        """
        if any(isinstance(part, _TYPED) for part in flat_inputs):
            return
        is_there = any(_is_colour(part) for part in flat_inputs)
        for part in flat_inputs:
            if isinstance(part, np.ndarray) and _is_image(part, is_there):
                raise ImageError(
                    f"torchvision leaves numpy arrays alone, and this sample's {part.shape} one "
                    "looks like its image: make that a PIL image or a tv_tensors.Image"
                )

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Strength and seed of this call; none, if the image is to stay as it is.

        They come from torch's global generator, of which each call takes two numbers.
        """
        picked = bool(torch.rand((), dtype=torch.float32, device="cpu") < self.p)
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), device="cpu")))
        if not picked or not flat_inputs:
            return {}
        identity = 0
        if self.variants:
            first = _values(flat_inputs[0])
            first = first.cpu() if isinstance(first, Tensor) else first
            identity = identity_of([bytes_of(first).data])
        return self._variety.draw(rng, identity)._asdict()

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """An image or video, refined; of the type, dtype and shape that came."""
        if not params:
            return inpt
        values = _values(inpt)
        if isinstance(values, np.ndarray):
            refined = PIL.Image.fromarray(self._refiner(values, **params))
            refined.info = dict(inpt.info)  # its colour profile is one
            return refined
        if values.ndim < 3:
            raise ImageError(
                f"expected an image (..., C, H, W), got {tuple(values.shape)}: in a sample without "
                "a PIL image or tv_tensors.Image, torchvision takes the first tensor for the image"
            )
        images = values.flatten(0, -4) if values.ndim > 4 else values  # (N, C, H, W)
        if isinstance(inpt, tv_tensors.Video) and values.ndim > 3:
            frames = values.shape[-4]
            seeds = [params["seed"] + number // frames for number in range(len(images))]
            params = {**params, "seed": seeds}
        return tv_tensors.wrap(self._refiner(images, **params).reshape(values.shape), like=inpt)


def _is_colour(part: Any) -> bool:
    """Whether it is a tensor that may well be the image."""
    return is_pure_tensor(part) and part.ndim >= 3 and part.shape[-3] in (3, 4)


def _is_image(array: np.ndarray[Any, Any], is_there: bool) -> bool:
    """Whether an array looks like an image, and not like boxes or classes.

    Args:
        is_there: whether something else may be the image, and a grey one is a mask, floats are
            keypoints.
    """
    levels = array.dtype in (np.uint8, np.uint16)
    if array.ndim == 3 and array.shape[2] in (1, 3, 4):
        return array.dtype == np.uint8 or (not is_there and (levels or array.dtype.kind == "f"))
    return array.ndim == 2 and min(array.shape) > 4 and levels and not is_there


def _values(inpt: Any) -> Any:
    """An image as `ImageRefiner` takes it: a PIL image as an array, a tensor without its type."""
    if not isinstance(inpt, PIL.Image.Image):
        return inpt.as_subclass(Tensor)
    if inpt.mode not in _MODES:
        raise ImageError(
            f"expected a PIL image in one of the modes {', '.join(_MODES)}, got {inpt.mode}: "
            + (
                # convert('RGB') would clip them
                "give a tensor of uint16, or of floats in [0, 1], as a tv_tensors.Image"
                if inpt.mode[0] in "IF"
                else "convert it first, image.convert('RGB')"
            )
        )
    return np.asarray(inpt)
