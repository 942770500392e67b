"""What a study works on: everything read and checked before anything is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from simgan_aug import coco
from simgan_aug.devices import resolve_device
from simgan_aug.errors import DataError
from simgan_aug.files import chunks
from simgan_aug.folders import check_apart, list_images
from simgan_aug.inference import ImageRefiner
from simgan_aug.realism.groups import joined, near_duplicates, thumbnail
from simgan_aug.realism.resampling import numbered
from simgan_aug.study import canvas, leaks
from simgan_aug.study.arms import ORACLE, SHARED, Arm, arms_of
from simgan_aug.study.forms import folder_of
from simgan_aug.study.gains import halved
from simgan_aug.study.labelled import (
    LEAST,
    Labelled,
    check_same_keypoints,
    drawn,
    open_labelled,
    sizes_of,
)
from simgan_aug.study.probe import Budget
from simgan_aug.study.refiners import PLACEHOLDERS, command_words, config_of
from simgan_aug.study.settings import GROUPS, Settings
from simgan_aug.study.split import Split, read_photos, read_split
from simgan_aug.study.tasks import Task, task_of

Array = np.ndarray[Any, Any]

FIXED = (
    "task",
    "steps",
    "batch_size",
    "forms",
    "limit",
    "flip",
    "groups",
    "only_labels",
    "features",
)
"""Settings that every cell of a study shares."""


class Material:
    """The data of a study as its probes see them, and its arms.

    Args:
        settings: see `Settings`.

    Raises:
        SimganAugError: they cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.notes: list[str] = []
        self.arms = arms_of(settings.arms, settings.real_labels is not None)
        self.configs = self._configs()
        # Realism is of whole images, whatever the task; boxes tell whether labels have moved.
        kind = task_of(settings.task if settings.real_test else "detect")
        source = open_labelled(settings.synthetic, settings.images, settings.limit)
        self.images = source.folder
        for folder in (self.images, settings.real_train):
            check_apart(folder, settings.out)
        self.categories = tuple(source.names())
        self.size = settings.size or canvas.fitting(sizes_of(source, kind), kind.area)
        self.task: Task | None = None
        if settings.real_test:
            points = max(source.keypoints().values(), default=0)
            self.task = kind(self.categories, points, self.size)
        self.metric = kind.metric
        maps = kind.maps or settings.only_labels
        self.synthetic = read_split(source, kind, self.size, self.categories, maps)
        self._check_boxes(source, self.synthetic)
        self.photos = read_photos(settings.real_train, self.size, settings.limit)
        self._source = source
        test = settings.real_test, settings.real_test_images
        self.test = self._labelled(*test, "--real-test-images")
        self.oracle = self._labelled(settings.real_labels, settings.real_train, "--real-train")
        size = settings.batch_size or kind.batch_size
        self.budget = Budget(settings.steps, size, settings.flip, resolve_device(settings.device))
        if self.test is not None:
            self.halves  # noqa: B018  # which finds out whether there are two
        self._note_leaks()
        self._check_own()

    @property
    def is_scored(self) -> bool:
        """Whether there are real test photos."""
        return self.test is not None

    @cached_property
    def groups(self) -> Array:
        """Of the test images, (n,): equal for those that belong together, as crops of one photo do.

        Raises:
            DataError: too few groups for two halves.
        """
        assert self.test is not None
        names, way = [view.name for view in self.test.views], self.settings.groups
        found = numbered(names)
        if way == "folder":
            found = numbered([os.path.dirname(name) for name in names])
        elif way == "similar":
            pictures = map(thumbnail, self.test.pictures(self.test.images))
            alike = near_duplicates(np.stack(list(pictures)))
            found = joined(alike, enumerate(np.unique(found, return_index=True)[1][found]))
        if (count := len(np.unique(found))) < LEAST:
            raise DataError(
                f"{self.settings.real_test}: {len(found)} test images in {count} groups that "
                f"belong together ({way}), expected {LEAST} or more; say with --groups what does: "
                f"{', '.join(GROUPS)}"
            )
        return found

    @cached_property
    def halves(self) -> Array:
        """Of the test images, (n,) bool."""
        return halved(self.groups)

    def facts(self) -> dict[str, dict[str, Any]]:
        """What must be the same whenever the study goes on."""
        settings = {name: getattr(self.settings, name) for name in FIXED}
        splits = {
            "synthetic": self.synthetic,
            "real photos": self.photos,
            "real test": self.test,
        }
        return {
            "settings": {**settings, "size": list(self.size), "categories": list(self.categories)},
            "inputs": {k: None if v is None else v.fingerprint for k, v in splits.items()},
        }

    def arm_facts(self) -> dict[str, Any]:
        """What each arm is, and each whose refiner they share; that of a name must not change."""
        makers = {a.maker: {**self._arm(a), "kind": a.maker} for a in self.arms if a.kind in SHARED}
        return {**makers, **{arm.name: self._arm(arm) for arm in self.arms}}

    def summary(self) -> list[str]:
        """Numbers of the study in words."""
        parts = [f"{len(self.synthetic):,} synthetic", f"{len(self.photos):,} unlabelled real"]
        if self.test is not None:
            groups = len(np.unique(self.groups))
            parts.append(f"{len(self.test):,} real test ({groups:,} groups)")
        if self.oracle is not None:
            parts.append(f"{len(self.oracle):,} labelled real, for the oracle alone,")
        wide, high = self.size
        said = (
            f"{', '.join(parts)} images at {wide}x{high}; {self.settings.forms} forms of an image"
        )
        if self.is_scored:
            said += (
                f"; task {self.settings.task}, categories {', '.join(self.categories[:12])}; "
                f"probes of {self.budget.steps} steps of {self.budget.batch_size} images"
            )
        return [said]

    def _labelled(self, path: Path | None, folder: Path | None, option: str) -> Split | None:
        if path is None:
            return None
        source = open_labelled(path, folder, self.settings.limit, option)
        self._note_categories(source)
        if self.settings.task == "keypoints":
            check_same_keypoints(self._source, source)
        kind = task_of(self.settings.task)
        split = read_split(source, kind, self.size, self.categories, kind.maps)
        self._check_boxes(source, split)
        return split

    def _check_boxes(self, source: Labelled, split: Split) -> None:
        boxed = any(label.box is not None for labels in split.labels for label in labels)
        if self.task is not None and self.settings.task == "detect" and not boxed:
            raise DataError(f"{source.path}: no label has a box or an outline; detect takes one")

    def _note_categories(self, source: Labelled) -> None:
        known, others = set(self.categories), set(source.names()) - set(self.categories)
        if not known & set(source.names()):
            raise DataError(
                f"{source.path}: no label of a category that the synthetic images have "
                f"({_some(known)}); it has: {_some(others)}; categories are matched by name"
            )
        if others:
            self.notes.append(
                f"{source.path.name}: labels of {_some(others)} do not count, the synthetic "
                "images have none"
            )

    def _note_leaks(self) -> None:
        """Photos that refiners alone see; test photos that these, or the oracle, have seen."""
        folder, path = self.settings.real_train, self.settings.real_test
        names, kept = list_images(folder), {view.name for view in self.photos.views}
        if len(names) > len(kept):
            self.notes.append(
                f"baselines see {len(kept):,} of {len(names):,} photos in --real-train (--limit), "
                "refiners learn from all"
            )
        if path is None or self.test is None:
            return
        photos = leaks.pictures(folder, drawn(names, leaks.LOOKED_AT))
        tests = dict.fromkeys(view.name for view in self.test.views)
        place = self.settings.real_test_images or coco.image_folder(path)
        shared = int(leaks.seen(leaks.pictures(place, tests), photos).sum())
        if shared:
            self.notes.append(
                f"{shared} of {len(tests)} test photos lie in --real-train too, or near-duplicates "
                "of them: what learns from these photos has seen them"
            )

    def _check_own(self) -> None:
        """Find out now, not after hours, that an arm of the user cannot be used."""
        for arm in self.arms:
            if arm.kind == "command":
                command_words(arm.source, dict.fromkeys(PLACEHOLDERS, ""))
            elif arm.kind == "refiner":
                ImageRefiner.load(arm.source, "cpu")
            elif arm.kind == "folder":
                folder_of(self.synthetic, Path(arm.source))

    def _configs(self) -> dict[str, Any]:
        """What each arm trains, of those that do."""
        settings = self.settings
        found = {a.name: config_of(a, settings.config, settings.refiner_steps) for a in self.arms}
        return {name: config for name, config in found.items() if config is not None}

    def _arm(self, arm: Arm) -> dict[str, Any]:
        if arm.name in self.configs:
            return {"kind": arm.kind, "config": self.configs[arm.name].to_builtins()}
        if arm.kind == "refiner":
            return {"kind": arm.kind, "sha256": _digest([Path(arm.source)])}
        if arm.kind == "folder":
            folder = Path(arm.source)
            files = (folder / name for name in list_images(folder))
            return {"kind": arm.kind, "sha256": _digest(files)}
        if arm.kind == ORACLE and self.oracle is not None:
            return {"kind": arm.kind, "labels": self.oracle.fingerprint}
        return {"kind": arm.kind, "source": arm.source}


def versions(device: object) -> dict[str, str]:
    """Of what computes, and where."""
    names = ("simgan-aug", "torch", "numpy", "albumentations")
    return {**{name: metadata.version(name) for name in names}, "device": str(device)}


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:8]) or "none"


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode("utf-8", "surrogateescape"))
        for part in chunks(path):
            digest.update(part)
    return digest.hexdigest()
