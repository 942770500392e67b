"""`Refine` for kornia 0.9.

    import kornia.augmentation as K
    from simgan_aug.transforms.kornia import Refine

    refine = Refine("run/refiner.safetensors", p=0.5)
    K.AugmentationSequential(refine, K.RandomHorizontalFlip(), data_keys=["input", "mask", "bbox"])

`torch.compile(fullgraph=True)` takes it. It takes an `AugmentationSequential` of kornia 0.9.0 only
with `disable_features = True`, whatever is in it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from torch import Tensor

from simgan_aug.devices import uploaded
from simgan_aug.shared import Refiner, as_refiner, described
from simgan_aug.variety import Variety, check_probability


class Refine(IntensityAugmentationBase2D):  # type: ignore[misc]
    """Makes synthetic images look real; boxes, masks and keypoints stay where they are.

    Place it first: it has been trained on whole renders. The network sees the picked images alone,
    stays out of the host's `parameters()`, `state_dict()` and `train()`, and no gradient passes
    through it. In a dict without `data_keys` kornia takes every key that begins with "image_" for
    an image, `image_id` and `image_mask` too: name the `data_keys`.

    Args:
        refiner: path of a refiner file, a name under which a plugin ships one, or an
            `ImageRefiner`.
        p: probability of refining an image.
        strength: share of the change, in [0, 1]; or the two ends of a range to draw it from.
        p_batch: probability that a batch has any image refined.
        same_on_batch: one die, one seed and one strength for all images of a batch.
        keepdim: give (C, H, W) for (C, H, W), not (1, C, H, W).
        device: of a refiner given by name; see `SharedRefiner`.
        precision: of a refiner given by name; see `ImageRefiner`.
        backend: of a refiner given by name; see `ImageRefiner.load`.
        dense: show the network all images of a batch, the others at strength 0, so that its input
            always has one shape.

    Shape:
        (B, C, H, W) or (C, H, W) floats in [0, 1], of any precision; the same comes out.

    Raises:
        CheckpointError: there is no such refiner, or it cannot be used here.
        ConfigError: impossible settings.
        ImageError: at a call, images of another kind.
    """

    def __init__(
        self,
        refiner: str | os.PathLike[str] | Refiner,
        p: float = 0.5,
        strength: float | tuple[float, float] = 1.0,
        *,
        p_batch: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        backend: str | os.PathLike[str] = "torch",
        dense: bool = False,
    ) -> None:
        check_probability(p)
        check_probability(p_batch, "p_batch")
        super().__init__(p=p, p_batch=p_batch, same_on_batch=same_on_batch, keepdim=keepdim)
        self._variety = Variety(strength)
        self._refiner = as_refiner(refiner, device=device, precision=precision, backend=backend)
        self.flags = {  # what kornia's repr shows
            "refiner": described(refiner),
            "strength": strength,
            "device": device,
            "precision": precision,
            "backend": os.fspath(backend),
            "dense": dense,
        }
        self._handle = _registered(self)

    def generate_parameters(self, batch_shape: Sequence[int]) -> dict[str, Tensor]:
        """A seed and a strength for each image, from torch's global generator of the CPU."""
        count = batch_shape[0]
        drawn = 1 if self.same_on_batch else count
        seed = torch.randint(2**63 - 1, (drawn,), device="cpu")
        strength = torch.empty(drawn, dtype=torch.float64, device="cpu")
        strength.uniform_(*self._variety.range)
        return {"seed": seed.expand(count), "strength": strength.expand(count)}

    def apply_transform(
        self,
        input: Tensor,
        params: Mapping[str, Tensor],
        flags: Mapping[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        """The images, those refined that `params["batch_prob"]` picks."""
        picked = params["batch_prob"].reshape(-1) > 0.5
        if len(picked) != len(input):  # kornia 0.8 passes those alone, and draws for them alone
            picked = picked.new_ones(len(input))
        images, seed, strength = input.detach(), params["seed"], params["strength"]
        if torch.compiler.is_compiling():
            refined: Tensor = _opaque(images, picked, seed, strength, flags["dense"], self._handle)
            return refined
        return self._refine(images, picked, seed, strength, flags["dense"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As a transform of its own, which a compiled graph can tell from the one copied."""
        super().__setstate__(state)
        self._handle = _registered(self)

    def _refine(
        self, images: Tensor, picked: Tensor, seed: Tensor, strength: Tensor, dense: bool
    ) -> Tensor:
        picked, seed, strength = picked.cpu(), seed.cpu(), strength.cpu()
        refined, rows = images.clone(), picked.nonzero()[:, 0]
        if not len(rows):
            return refined
        shown, there = slice(None) if dense else rows, uploaded(rows, images.device)
        changed = self._refiner(
            images if dense else images[there],  # an index on the CPU would wait for a GPU
            seed=seed[shown].tolist(),
            strength=(strength * picked)[shown].tolist(),
        )
        refined[there] = changed[there] if dense else changed
        return refined


_TRANSFORMS: WeakValueDictionary[str, Refine] = WeakValueDictionary()
_numbers = itertools.count()


def _registered(transform: Refine) -> str:
    """A handle by which a compiled graph finds a transform, for as long as that lives."""
    handle = str(next(_numbers))
    _TRANSFORMS[handle] = transform
    return handle


# Its draws come to the CPU, which nothing that is captured into a CUDA graph may.
_UNSAFE = getattr(torch.Tag, "cudagraph_unsafe", None)  # torch 2.9
_tags: dict[str, Any] = {} if _UNSAFE is None else {"tags": (_UNSAFE,)}


@torch.library.custom_op(
    "simgan_aug::refine",
    mutates_args=(),
    schema="(Tensor images, Tensor picked, Tensor seed, Tensor strength, bool dense, str handle)"
    " -> Tensor",
    **_tags,
)
def _opaque(
    images: Tensor, picked: Tensor, seed: Tensor, strength: Tensor, dense: bool, handle: str
) -> Tensor:
    """Stands for `Refine._refine` in a compiled graph, which sees the shape of its result alone."""
    return _TRANSFORMS[handle]._refine(images, picked, seed, strength, dense)


_opaque.register_fake(lambda images, *_: torch.empty_like(images))
