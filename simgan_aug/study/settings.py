"""What a study is told: where the data lies, and how much of everything each arm gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simgan_aug.errors import ConfigError, did_you_mean

GROUPS = ("similar", "folder", "none")
"""What makes test photos belong together: near-duplicates, their folder, or nothing."""

TASKS = ("classify", "segment", "keypoints", "detect")

BOUNDS = {
    "seeds": (1, 100),
    "steps": (10, 1_000_000),
    "batch_size": (2, 4096),
    "forms": (1, 100),
    "limit": (8, 1_000_000),
    "refiner_steps": (1, 10_000_000),
}
"""The least and the most that a number may be."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One study; only arms and seeds may be added to later.

    Raises:
        ConfigError: an impossible value.
    """

    synthetic: Path
    """COCO file of the synthetic images."""
    real_train: Path
    """Folder of real photos; refiners and references come from them, labels are never read."""
    out: Path
    """Folder of the study."""
    images: Path | None = None
    """Folder of the synthetic images; None: as `coco.image_folder` finds it."""
    real_test: Path | None = None
    """COCO file of labelled real photos to score on; None: realism only, as a proxy."""
    real_test_images: Path | None = None
    """Their folder; None: as `coco.image_folder` finds it."""
    real_labels: Path | None = None
    """COCO file of the photos in `real_train`, for the arm "oracle" alone."""
    task: str = "classify"
    """One of `TASKS`."""
    arms: tuple[str, ...] = ()
    """Names of built-in arms, or NAME=SOURCE of one's own; empty: all that the data allow."""
    seeds: int = 3
    """Probes, and refiners, of each arm; each seed is the same for all arms."""
    size: tuple[int, int] | None = None
    """Width and height in px of what a probe sees; None: from the data, small enough for a CPU."""
    steps: int = 400
    """Of each probe."""
    batch_size: int | None = None
    """Images of a step of a probe; None: what the task takes."""
    forms: int = 4
    """Of each synthetic image, where an arm draws: other seeds, other reference photos."""
    refiner_steps: int | None = None
    """Adversarial steps of each refiner that is trained; None: what its config says."""
    config: Path | None = None
    """TOML file of what the arms "default", "mixed" and "strength" train; None: our default."""
    limit: int = 3000
    """Images of each side that probes and baselines see, of more a random part; refiners that are
    trained, and commands, see all."""
    flip: bool = True
    """Mirror half of the images while training a probe, but for keypoints; not for text, or where
    left and right are categories."""
    groups: str = "similar"
    """One of `GROUPS`; those that belong together count as one, and lie in one half."""
    features: str = "random"
    """Feature space of realism, where there is no `real_test`; see `simgan_aug.realism`."""
    only_labels: bool = False
    """Undo what an arm does outside of labels, so that only what becomes of these is compared."""
    device: str = "auto"
    """"auto" or what `torch.device` takes."""

    def __post_init__(self) -> None:
        """Reject impossible values."""
        if self.task not in TASKS:
            raise ConfigError(f"no task named {self.task!r}{did_you_mean(self.task, TASKS)}")
        if self.groups not in GROUPS:
            raise ConfigError(f"no groups named {self.groups!r}{did_you_mean(self.groups, GROUPS)}")
        if self.real_test is not None and self.features != "random":
            raise ConfigError("features are of realism, which is measured without real_test only")
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"{name} must be {least} to {most}, got {value}")
        if self.size is not None and not (min(self.size) >= 16 and max(self.size) <= 2048):
            raise ConfigError(f"size must be 16 to 2048 px each way, got {self.size}")
