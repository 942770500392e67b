"""The arms of a study: names, what each of them is for, and one's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from simgan_aug.errors import ConfigError, did_you_mean

BASELINES = {
    "raw": "the synthetic images as they are",
    "jitter": "raw, with stronger jitter to choose from",
    "colour": "mean and deviation of each channel as the real photos have them",
    "fda": "albumentations' FDA, a random real photo per image and form",
    "hm": "albumentations' HistogramMatching, likewise",
    "pda": "principal axes of colours as those of a random real photo, likewise",
}
"""Arms that learn nothing, which refining has to beat."""

REFINERS = {
    "paper": "preset paper-eyes with a batch of 8, for a CPU",
    "default": "our default, or the config given",
    "mixed": "half of the images as in default, half raw",
    "strength": "as default, each image with a random strength",
}
"""Arms that train a refiner."""

ORACLE = "oracle"
"""The arm trained on real labels, which nothing is held against."""

SHARED = ("default", "mixed", "strength")
"""Arms that share the refiner of the first of them."""


@dataclass(frozen=True)
class Arm:
    """One way to make training images."""

    name: str
    kind: str
    """The name of a built-in arm, or what a source of one's own is: "folder", "refiner", "config"
    or "command"."""
    source: str = ""
    """Path or command of one's own."""

    @property
    def is_baseline(self) -> bool:
        """Whether it has learnt nothing."""
        return self.kind in BASELINES

    @property
    def is_own(self) -> bool:
        """Whether the user has brought it."""
        return bool(self.source)

    @property
    def maker(self) -> str:
        """The arm whose forms it shows: its own, or the default's."""
        return SHARED[0] if self.kind in SHARED else self.name

    @property
    def what(self) -> str:
        """In words."""
        known = {**BASELINES, **REFINERS, ORACLE: "trained on the real labels"}
        return f"{self.kind}: {self.source}" if self.is_own else known[self.kind]


def arms_of(wanted: Iterable[str], with_oracle: bool) -> tuple[Arm, ...]:
    """The arms that a user asks for; "raw" is always among them.

    Args:
        wanted: names, or NAME=SOURCE; none: all built-in ones.
        with_oracle: whether real labels are there.

    Raises:
        ConfigError: a name that is unknown, doubled or impossible, or a source that is missing.
    """
    texts = list(wanted) or [*BASELINES, *REFINERS, *([ORACLE] if with_oracle else [])]
    arms = [_own(text) if "=" in text else _built_in(text) for text in texts]
    if not any(arm.kind == "raw" for arm in arms):
        arms.insert(0, Arm("raw", "raw"))
    names = [arm.name for arm in arms]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"arms: {', '.join(doubled)} given twice; give each a name of its own")
    if ORACLE in names and not with_oracle:
        raise ConfigError("arms: the oracle needs real labels: say with --real-labels where")
    return tuple(arms)


def _built_in(name: str) -> Arm:
    known = [*BASELINES, *REFINERS, ORACLE]
    if name not in known:
        raise ConfigError(
            f"no arm named {name!r}{did_you_mean(name, known)}; one of your own is NAME=SOURCE"
            + ("; give --arms once for each" if set(name) & set(", ") else "")
        )
    return Arm(name, name)


def _own(text: str) -> Arm:
    name, _, source = text.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", name):
        raise ConfigError(
            f"arms: expected NAME=SOURCE with a name of letters, digits, _ . -, got {text!r}"
        )
    if name in (*BASELINES, *REFINERS, ORACLE):
        raise ConfigError(f"arms: {name!r} is a built-in arm; give yours another name")
    if source.startswith("cmd:"):
        return Arm(name, "command", source.removeprefix("cmd:"))
    path = Path(source)
    kinds = {".safetensors": "refiner", ".toml": "config"}
    kind = kinds.get(path.suffix.lower(), "folder")
    if not source or not (path.is_dir() if kind == "folder" else path.is_file()):
        raise ConfigError(
            f"arms: {name}: no such {'folder' if kind == 'folder' else 'file'}: {source!r}; "
            "expected a folder of images, a .safetensors refiner, a .toml config, or cmd:COMMAND"
        )
    return Arm(name, kind, source)
