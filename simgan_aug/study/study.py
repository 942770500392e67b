"""The study: arms times seeds, one cell at a time, from which it can go on after any end.

STUDY/study.json, cells.jsonl   see `journal`
STUDY/runs/ARM-SEED/            the refiners that were trained
STUDY/made/ARM-SEED/            what a command of one's own has written
STUDY/table.md, plot.svg        the answer
STUDY/arms.png                  the same images as each arm shows them
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from simgan_aug.errors import ConfigError, OutputError, SimganAugError
from simgan_aug.files import write_atomically
from simgan_aug.folders import alone_in
from simgan_aug.realism import compare, extractor
from simgan_aug.sheet import save_png, sheet, spaced
from simgan_aug.study import forms, shown
from simgan_aug.study.arms import ORACLE, Arm
from simgan_aug.study.augment import JITTER, SEARCH, Policy
from simgan_aug.study.journal import Cell, Journal
from simgan_aug.study.making import PLAIN, Maker
from simgan_aug.study.material import Material, versions
from simgan_aug.study.probe import STEPS_A_TICK, Feed, predict, train_probe
from simgan_aug.study.results import Results, summarise
from simgan_aug.study.settings import Settings
from simgan_aug.study.split import Split

Array = np.ndarray[Any, Any]

PICTURES = 8
"""Images of an arm on the sheet."""


class Study:
    """One study: what is asked, what went in, what has come out so far.

    Args:
        settings: see `Settings`; a folder that holds a part of the same study is gone on with.

    Raises:
        SimganAugError: the data, the settings or the folder cannot be used; nothing has been
            written.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        extractor(settings.features)  # so that a mistake in its name is found now
        self.material = Material(settings)
        self.maker = Maker(self.material)
        self.journal = Journal(
            settings.out,
            self.material.facts(),
            self.material.arm_facts(),
            versions(self.material.budget.device),
        )

    @property
    def notes(self) -> list[str]:
        """What a user would want to know about the data."""
        return self.material.notes

    @property
    def cells(self) -> list[tuple[Arm, int]]:
        """All cells, those of one refiner together."""
        arms = self.material.arms
        first = {arm.maker: place for place, arm in reversed([*enumerate(arms)])}
        order = sorted(arms, key=lambda arm: first[arm.maker])
        if not self.material.is_scored:
            return [(arm, 0) for arm in order if arm.kind not in PLAIN]
        return [(arm, seed) for seed in range(self.settings.seeds) for arm in order]

    @property
    def pending(self) -> list[tuple[Arm, int]]:
        """Cells that are not finished."""
        return [cell for cell in self.cells if (cell[0].name, cell[1]) not in self.journal.cells]

    @property
    def total(self) -> int:
        """Signs of life that `run` will give, about."""
        made = {(arm.maker, seed): arm for arm, seed in self.pending}
        ticks = sum(self.maker.ticks(arm) for arm in made.values())
        return ticks + sum(self._ticks(arm) for arm, _ in self.pending)

    def run(self) -> Iterator[str]:
        """Run what is pending; yields what is at work, often. Ends with the table written.

        Raises:
            ConfigError: another study is at work in the folder.
            SimganAugError: an arm cannot be made: the first such, after the others have been run;
                finished cells are kept, and the table of them is written.
        """
        with alone_in(self.settings.out, "study"):
            yield from self._run()

    def _run(self) -> Iterator[str]:
        self.journal.start()
        failed: dict[str, SimganAugError] = {}
        try:
            for arm, seed in self.pending:
                if arm.maker in failed:
                    continue  # a row takes all seeds
                try:
                    yield from self._finish(arm, seed)
                except OutputError:
                    raise
                except SimganAugError as error:
                    failed[arm.maker] = error
        finally:  # after Ctrl-C too
            self.write()
        if failed:
            raise next(iter(failed.values()))

    def results(self) -> Results:
        """What the finished cells say."""
        material = self.material
        if not material.is_scored:
            raise ConfigError("without real test photos there are no scores, only `realism`")
        return summarise(
            material.arms,
            self.journal.cells,
            self.settings.seeds,
            material.groups,
            material.halves,
        )

    def realism(self) -> dict[str, list[dict[str, Any]]]:
        """The measures of each arm, where there are no real test photos."""
        found = self.journal.cells.values()
        return {cell["arm"]: cell["realism"] for cell in found if "realism" in cell}

    def table(self) -> str:
        """The answer as Markdown."""
        notes = [*self.material.summary(), *self.notes]
        if left := list(dict.fromkeys(arm.name for arm, _ in self.pending)):
            notes.insert(0, f"not finished: {', '.join(left)}; the same command goes on")
        if not self.material.is_scored:
            return shown.proxies(self.realism(), notes)
        results = self.results()
        return shown.table(results, self.material.metric, [*shown.legend(results), *notes])

    def write(self) -> None:
        """Write table, plot and sheet.

        Raises:
            OutputError: the folder cannot be written.
        """
        out = self.settings.out
        write_atomically(out / "table.md", self.table().encode())
        if self.material.is_scored:
            svg = shown.plot(self.results(), self.material.metric)
            write_atomically(out / "plot.svg", svg.encode())
        rows = shown.strips(out / "pictures", [arm.name for arm in self.material.arms])
        real = self.material.photos.images
        rows["real"] = [_strip(real[spaced(len(real), PICTURES)])]
        save_png(sheet(rows, cell=192 * PICTURES), out / "arms.png")

    def _finish(self, arm: Arm, seed: int) -> Iterator[str]:
        work = self._cell(arm, seed)
        try:
            while True:
                next(work)
                yield f"{arm.name}, seed {seed}"
        except StopIteration as done:
            self.journal.add(done.value)
        finally:
            work.close()

    def _cell(self, arm: Arm, seed: int) -> Generator[None, None, Cell]:
        """One arm with one seed."""
        began, material = time.monotonic(), self.material
        made = yield from self.maker.make(arm, seed)
        feed = self.maker.feed(arm, made, seed)
        cell: Cell = {"arm": arm.name, "seed": seed}
        if seed == 0 and arm.kind != ORACLE:
            picture = _strip(feed(np.array(spaced(len(material.synthetic), PICTURES)), 0))
            folder = self.settings.out / "pictures"
            save_png(Image.fromarray(picture), folder / f"{arm.name}.png")
        if material.is_scored:
            split = material.oracle if arm.kind == ORACLE else material.synthetic
            assert split is not None
            known = self.journal.cells.get(("raw", seed), {}) if arm.kind == "jitter" else {}
            found = known.get("values", {})  # the same probes
            left = [policy for policy in policies(arm) if policy.name not in found]
            cell["values"] = {**found, **(yield from self.score(split, feed, left, seed))}
        else:
            cell["realism"] = self._realism(feed)
        cell["drift"] = None
        if arm.kind not in PLAIN:
            moved = forms.drift(material.synthetic, made[0])
            cell |= {"drift": moved.px, "located": [moved.located, moved.labels]}
            cell["grown"] = forms.grown(material.synthetic, made[0])
        cell["seconds"] = round(time.monotonic() - began, 1)
        return cell

    def score(
        self, split: Split, feed: Feed, search: Sequence[Policy], seed: int
    ) -> Generator[None, None, dict[str, list[float]]]:
        """Train a probe with each augmentation of a search; the value of each test image, of each.

        Args:
            split: with the labels to learn from.
            feed: its images.
            search: what is chosen from later, by `gains.chosen`.
            seed: of the probes.
        """
        task, test, budget = self.material.task, self.material.test, self.material.budget
        assert task is not None
        assert test is not None
        found = {}
        for policy in search:
            network = yield from train_probe(task, split, feed, policy, seed, budget)
            answers, values = predict(task, network, test.images, budget), np.zeros(len(test))
            for half in (False, True):
                rows = np.flatnonzero(self.material.halves == half)
                values[rows] = task.values(answers[rows], test.rows(rows))
            found[policy.name] = values.round(6).tolist()
        return found

    def _realism(self, feed: Feed) -> list[dict[str, Any]]:
        material = self.material
        split, photos = material.synthetic, material.photos
        made = feed(np.arange(len(split)), 0)
        found = compare(
            split.pictures(split.images),
            photos.pictures(photos.images),
            split.pictures(made),
            features=self.settings.features,
        )
        measures: list[dict[str, Any]] = found.as_json()["measures"]
        return measures

    def _ticks(self, arm: Arm) -> int:
        """Signs of life of the probes of one cell."""
        if not self.material.is_scored:
            return 0
        return len(policies(arm)) * -(-self.settings.steps // STEPS_A_TICK)


def policies(arm: Arm) -> tuple[Policy, ...]:
    """The augmentations that an arm chooses from."""
    return SEARCH + JITTER if arm.kind == "jitter" else SEARCH


def _strip(images: Array) -> Array:
    """Images beside each other, (H, B * W, 3)."""
    return np.concatenate(list(images), axis=1)
