"""`Refine` for albumentations 2.0 (and albumentationsx 2.5, which has the same import name).

    import albumentations as A
    from simgan_aug.transforms.albumentations import Refine

    A.Compose([Refine("run/refiner.safetensors", p=0.5), A.HorizontalFlip()], bbox_params=...)

`A.load` and `A.from_dict` know the class only in a process that has imported this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import albumentations as A
import numpy as np
from torch.utils.data import Dataset, get_worker_info

from simgan_aug.errors import ConfigError
from simgan_aug.pixels import bytes_of, check_channel_order
from simgan_aug.shared import SharedRefiner, check_cache
from simgan_aug.variety import Variety, check_seed, identity_of

Array = np.ndarray[Any, Any]

_IMAGES = ("image", "images", "volume", "volumes")


class Refine(A.ImageOnlyTransform):  # type: ignore[misc]
    """Makes a synthetic image look real; boxes, masks and keypoints stay where they are.

    Place it first: it has been trained on whole renders, and a cache finds again what is not yet
    cropped. Draws come from the Compose's seed (or `seed`) and, within a `DataLoader`, from the
    worker's: streams differ between workers and epochs, and repeat under `torch.manual_seed`, if
    there is a seed or the loader has `reseed_worker`. Images of a video have one form. Two of these
    in one seeded Compose draw alike, as albumentations 2.0 seeds all transforms alike: give each a
    `seed` of its own.

    Args:
        refiner: path of a refiner file, or the name under which a plugin ships one.
        p: probability of refining an image.
        strength: share of the change, in [0, 1]; or the two ends of a range to draw it from.
        device: "auto" is the CPU in a worker; else see `SharedRefiner`.
        channel_order: "rgb", or "bgr" for images as OpenCV reads and Ultralytics passes them.
        seed: of this transform's own draws; None: of the Compose.
        precision: "auto", "fp32" or "bf16"; see `ImageRefiner`.
        variants: refined forms that one image has; 0: a new one at every draw.
        cache: "memory" (of each worker) or a folder that workers share; needs `variants`.
        cache_mb: MiB that the cache holds at most.
        backend: "torch", "torch-compile", "openvino" or a folder; see `ImageRefiner.load`.

    Targets:
        image, images, volume, volumes: (H, W), (H, W, 1), (H, W, 3) or with alpha, uint8 or float32
        in [0, 1].

    Raises:
        CheckpointError: there is no such refiner, or it cannot be used here.
        ConfigError: impossible settings.
        ImageError: at a call, an image of another kind.
    """

    class InitSchema(A.BasicTransform.InitSchema):  # type: ignore[misc]
        """Names the arguments; what they may be is checked by `Refine` itself, which says more."""

        refiner: Any
        strength: Any
        device: Any
        channel_order: Any
        seed: Any
        precision: Any
        variants: Any
        cache: Any
        cache_mb: Any
        backend: Any

    def __init__(
        self,
        refiner: str | os.PathLike[str],
        p: float = 0.5,
        strength: float | tuple[float, float] = 1.0,
        device: str = "auto",
        channel_order: str = "rgb",
        seed: int | None = None,
        precision: str = "auto",
        variants: int = 0,
        cache: str | os.PathLike[str] | None = None,
        cache_mb: int = 4096,
        backend: str | os.PathLike[str] = "torch",
    ) -> None:
        seed = None if seed is None else check_seed(seed)
        self._own_seed = seed
        self._begun: tuple[int | None, np.random.Generator] | None = None
        super().__init__(p=p)
        if not isinstance(refiner, (str, os.PathLike)):
            raise ConfigError(
                "refiner must be the path of a file or a registered name, for a pipeline is saved "
                f"as text and sent to workers; got {type(refiner).__name__}"
            )
        check_channel_order(channel_order)
        if isinstance(strength, Iterable):  # a list, where it comes out of JSON
            strength = tuple(strength)  # type: ignore[assignment]
        self._variety = Variety(strength, variants)
        low, high = map(float, self._variety.range)  # JSON takes none of numpy's numbers
        strength = (low, high) if isinstance(strength, tuple) else low
        self._refiner = SharedRefiner(
            refiner,
            device=device,
            precision=precision,
            backend=backend,
            cache=cache,
            cache_mb=cache_mb,
        )
        check_cache(cache, variants)
        self.refiner, self.strength = os.fspath(refiner), strength
        self.device = self._refiner.device  # a name, which goes into JSON
        self.channel_order, self.seed, self.precision = channel_order, seed, precision
        self.variants, self.cache_mb = int(variants), int(cache_mb)
        self.backend = os.fspath(backend)
        self.cache = None if cache is None else os.fspath(cache)

    def apply(self, img: Array, strength: float, seed: int, **_: Any) -> Array:
        """One image, refined."""
        refined: Array = self._refiner(
            img, seed=seed, strength=strength, channel_order=self.channel_order
        )
        return refined

    def apply_to_images(
        self, images: Array | list[Array], strength: float, seed: int, **_: Any
    ) -> Array | list[Array]:
        """A batch in one go, all in one form, as frames of a video are to be."""
        if isinstance(images, list) and len({(each.shape, each.dtype) for each in images}) == 1:
            return list(self.apply_to_images(np.stack(images), strength, seed))
        seeds: Any = [seed] * len(images)
        if isinstance(images, np.ndarray) and images.ndim == 3:  # (N, H, W)
            return self.apply(images[..., None], strength, seeds)[..., 0]
        return self.apply(images, strength, seeds)  # type: ignore[arg-type]

    def should_apply(self, force_apply: bool = False) -> bool:
        """Whether p's die says so; ours, for 2.0.8 throws the same in every worker."""
        if self.p <= 0 or self.p >= 1 or force_apply:
            return bool(self.p > 0)
        return bool(self._stream().random() < self.p)

    if hasattr(A.BasicTransform, "sample_parameters"):  # albumentationsx 2.4 and later

        def sample_parameters(
            self, params: Mapping[str, Any], data: Mapping[str, Any], targets: Any, sampling: Any
        ) -> Any:
            """The form that this call refines to."""
            from albumentations.core.transform_params import SampledParams

            stream = sampling.random_generator if self.seed is None else self._stream()
            return SampledParams(params=self._form(data, stream))

    else:

        def get_params_dependent_on_data(
            self, params: dict[str, Any], data: dict[str, Any]
        ) -> dict[str, Any]:
            """The form that this call refines to."""
            return self._form(data, self._stream())

    def set_random_seed(self, seed: int | None) -> None:
        """The host's seed, from which our draws begin anew; our own `seed` stays what it was."""
        super().set_random_seed(seed)
        self.seed, self._begun = self._own_seed, None

    def set_random_state(self, random_generator: np.random.Generator, py_random: Any) -> None:
        """The host's generators, from which our draws begin anew."""
        super().set_random_state(random_generator, py_random)
        self._begun = None

    def get_transform_init_args(self) -> dict[str, Any]:
        """With `seed`, which the host takes for its own and leaves out."""
        return {**super().get_transform_init_args(), "seed": self.seed}

    def _form(self, data: Mapping[str, Any], stream: np.random.Generator) -> dict[str, Any]:
        identity = 0
        if self.variants:
            image = next(data[key] for key in _IMAGES if data.get(key) is not None)
            several = image if isinstance(image, (list, tuple)) else [image]
            identity = identity_of(bytes_of(np.asarray(each)).data for each in several)
        return self._variety.draw(stream, identity)._asdict()

    def _stream(self) -> np.random.Generator:
        """Our draws in this process; begun anew in each worker, by the worker's own seed."""
        worker = get_worker_info()
        place = None if worker is None else worker.seed
        if self._begun is None or self._begun[0] != place:
            base = self.seed
            if base is None:  # the same in every worker, wherefore the worker's seed comes in too
                base = int(self.random_generator.integers(2**63))
            entropy = [base % 2**64] if place is None else [base % 2**64, place]
            self._begun = place, np.random.default_rng(entropy)
        return self._begun[1]


def reseed_worker(worker_id: int) -> None:
    """A `worker_init_fn` under which all transforms of a pipeline draw differently in each worker.

    albumentations 2.0.8 gives all workers, all epochs and (in a seeded Compose) all transforms the
    same random stream. This gives each its own, derived from the worker's seed, so that a run
    repeats under `torch.manual_seed`:

        DataLoader(dataset, num_workers=4, worker_init_fn=reseed_worker)

    Pipelines are looked for in the dataset's attributes, and in lists, dicts and datasets there.

    Raises:
        ConfigError: there is none in sight.
    """
    worker = get_worker_info()
    if worker is None:
        raise ConfigError("reseed_worker runs within a DataLoader: pass it as worker_init_fn")
    pipelines = list(_pipelines(worker.dataset, set()))
    if not pipelines:
        raise ConfigError(
            f"no albumentations pipeline found in the attributes of {type(worker.dataset).__name__}"
            "; keep it in one of them, or call reseed(pipeline, seed) in a worker_init_fn of yours"
        )
    for number, pipeline in enumerate(pipelines):
        reseed(pipeline, int(np.random.SeedSequence([worker.seed, number]).generate_state(1)[0]))


def reseed(pipeline: Any, seed: int) -> None:
    """Seed a pipeline and each transform in it, every one differently.

    Args:
        pipeline: a Compose, or one transform.
        seed: 0 or more.
    """
    if hasattr(A.BasicTransform, "sample_parameters"):
        pipeline.set_random_seed(seed)  # albumentationsx draws all from one stream
        return
    nodes = list(_nodes(pipeline))  # a Compose before its children, which it seeds like itself
    for node, state in zip(nodes, np.random.SeedSequence(seed).spawn(len(nodes)), strict=True):
        node.set_random_seed(int(state.generate_state(1)[0]))


def _nodes(pipeline: Any) -> Iterator[Any]:
    """A pipeline and all that is in it, from the outside in."""
    yield pipeline
    for child in getattr(pipeline, "transforms", ()):
        yield from _nodes(child)


def _pipelines(holder: Any, seen: set[int]) -> Iterator[Any]:
    """Outermost pipelines held by a dataset."""
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if isinstance(holder, (A.BaseCompose, A.BasicTransform)):
        yield holder
    elif isinstance(holder, Mapping):
        for part in holder.values():
            yield from _pipelines(part, seen)
    elif isinstance(holder, (list, tuple)) and len(holder) < 100:  # not a list of samples
        for part in holder:
            yield from _pipelines(part, seen)
    elif isinstance(holder, Dataset):
        for part in vars(holder).values():
            yield from _pipelines(part, seen)
