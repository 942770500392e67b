"""For tests of plugins: a plugin that is not installed, a small pair of data sets, a training."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simgan_aug import plugins
from simgan_aug.config import Config
from simgan_aug.configfile import parse
from simgan_aug.errors import PluginError
from simgan_aug.run import REFINER, Inputs, Run

SMALL: dict[str, dict[str, Any]] = {
    "refiner": {"name": "unshuffle", "features": 8, "blocks": 1},
    "discriminator": {"name": "patch", "features": 8},
    "tone": {"photos": 2},
    "data": {"crop": [16, 16]},
    "training": {"steps": 2, "batch_size": 4, "history": 8, "precision": "fp32"},
}
"""Tables of a config that trains a step in some milliseconds on a CPU."""


@dataclass(frozen=True)
class Pair:
    """Synthetic images with labels, and real ones."""

    annotations: Path
    """COCO: a box, a polygon and a keypoint on each image."""
    images: Path
    """Folder of the synthetic images."""
    real: Path
    """Folder of the real images."""


def write_pair(
    folder: Path, count: int = 4, size: tuple[int, int] = (20, 24), channels: int = 3
) -> Pair:
    """Write synthetic.json, synthetic/ and real/, PNGs of a bright box each, real ones with grain.

    Args:
        folder: need not exist.
        count: images a side.
        size: height and width in px, 16 at least.
        channels: 1 (grey) or 3.
    """
    rng, (height, width) = np.random.default_rng(0), size
    labels = []
    for number in range(count):
        left, top = (int(rng.integers(1, side // 3)) for side in (width, height))
        box = [left, top, width // 2, height // 2]
        for side, grain in (("synthetic", 0), ("real", 25)):
            pixels = rng.normal(60, grain, (height, width, channels))
            pixels[top : top + box[3], left : left + box[2]] += 120
            _save(pixels, folder / side / f"{number}.png")
        labels.append(_label(number, box))
    images = [
        {"id": n, "file_name": f"{n}.png", "width": width, "height": height} for n in range(count)
    ]
    content = {
        "images": images,
        "annotations": labels,
        "categories": [{"id": 1, "name": "box", "keypoints": ["corner"]}],
    }
    (folder / "synthetic.json").write_text(json.dumps(content))
    return Pair(folder / "synthetic.json", folder / "synthetic", folder / "real")


def small_config(**tables: str | Mapping[str, Any]) -> Config:
    """A config that trains in a moment, with these tables over `SMALL`.

    Args:
        tables: as in a TOML file; a string stands for the name of a part.
    """
    merged = {name: dict(table) for name, table in SMALL.items()}
    for name, table in tables.items():
        given = {"name": table} if isinstance(table, str) else dict(table)
        kept = merged.get(name, {})
        if "name" in given and given["name"] != kept.get("name"):
            kept = {}  # options of another part
        merged[name] = {**kept, **given}
    return parse(merged, source="small_config")


@contextlib.contextmanager
def offered(module: Any, name: str) -> Iterator[None]:
    """While this lasts, a module's hooks are those of a plugin, without anything being installed.

    For tests, scripts and notebooks: `with offered(sys.modules[__name__], "mine"):`. Processes that
    are started meanwhile know nothing of it.

    Args:
        module: or another object with functions marked `@simgan_aug.hookimpl`.
        name: of the plugin.

    Raises:
        PluginError: it is broken, or a plugin of this name is there already.
    """
    registry = plugins.registry()
    file = Path(getattr(module, "__file__", None) or name).name
    plugin = plugins.Plugin(name, file, "(not installed)", module)
    if name in registry.plugins:
        raise PluginError(f"there is a plugin {registry.plugins[name].title} already")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # who calls this is told by an error
            registry._add(plugin)
        if plugin.error:
            raise PluginError(f"plugin {plugin.title}: {plugin.error}")
        _OFFERED.append(plugin)
        try:
            yield
        finally:
            _OFFERED.remove(plugin)
    finally:
        plugins.registry.cache_clear()
        for other in _OFFERED:
            plugins.registry()._add(other)


_OFFERED: list[plugins.Plugin] = []
"""By those `offered` that last."""


def train_briefly(folder: Path, steps: int = 2, **tables: str | Mapping[str, Any]) -> Path:
    """Train with installed parts on a pair of data sets; gives the refiner file.

    For instance `train_briefly(tmp_path, refiner={"name": "mine", "features": 8})`.

    Args:
        folder: for the data and the run, which must not be there yet.
        steps: adversarial steps.
        tables: see `small_config`.

    Raises:
        SimganAugError: a part is unknown or refuses an option, or the training diverges.
    """
    pair, config = write_pair(folder / "data"), small_config(**tables)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=steps))
    inputs = Inputs(annotations=pair.annotations, images=pair.images, real=pair.real)
    for _ in Run(config, inputs, folder / "run", device="cpu").steps():
        pass
    return folder / "run" / REFINER


def _save(pixels: np.ndarray[Any, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = pixels if pixels.shape[2] == 3 else pixels[..., 0]
    Image.fromarray(shown.clip(0, 255).astype(np.uint8)).save(path)


def _label(number: int, box: list[int]) -> dict[str, Any]:
    left, top, width, height = box
    right, bottom = left + width, top + height
    return {
        "id": number + 1,
        "image_id": number,
        "category_id": 1,
        "bbox": box,
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
        "keypoints": [left, top, 2],
        "num_keypoints": 1,
    }
