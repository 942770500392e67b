"""What a study has done: its settings, held against those of the next run, and finished cells.

STUDY/study.json     settings, fingerprints of what went in, versions
STUDY/cells.jsonl    one line for each finished cell: an arm with a seed
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simgan_aug.errors import ConfigError, DataError
from simgan_aug.files import write_atomically
from simgan_aug.folders import check_writable

INFO, CELLS = "study.json", "cells.jsonl"

SHOWN = 5
"""Differences that a message names."""

Cell = dict[str, Any]
"""{"arm", "seed", "values": {augmentation: [a value for each test image]}, "drift", "located",
"grown", "seconds"}."""


class Journal:
    """The record of a study's folder.

    Args:
        out: the folder.
        facts: what must be the same whenever the study goes on: {"settings": {...}, "inputs":
            {...}}.
        arms: what each arm is, by name; others may be added later, none may change.
        versions: of what computes; kept, earlier ones too, not held against anything.

    Raises:
        ConfigError: the folder is not empty and of no study, or of one with other facts.
        DataError: its files are damaged.
    """

    def __init__(
        self,
        out: Path,
        facts: Mapping[str, Mapping[str, Any]],
        arms: Mapping[str, Any],
        versions: Mapping[str, str],
    ) -> None:
        check_writable(out)
        self.out, self._versions = out, dict(versions)
        self._facts = json.loads(json.dumps(facts))
        self._arms = json.loads(json.dumps(arms))
        self._earlier: list[dict[str, str]] = []
        self.cells: dict[tuple[str, int], Cell] = {}
        if (out / INFO).exists():
            self._continue()
        elif out.exists() and any(out.iterdir()):
            raise ConfigError(f"{out} is not empty and of no study; choose another --out")

    def start(self) -> None:
        """Write what the study is.

        Raises:
            OutputError: the folder cannot be written.
        """
        content = {**self._facts, "arms": self._arms, "versions": self._versions}
        if self._earlier:
            content["earlier versions"] = self._earlier
        write_atomically(self.out / INFO, (json.dumps(content, indent=2) + "\n").encode())

    def add(self, cell: Cell) -> None:
        """Remember a finished cell.

        Raises:
            OutputError: the folder cannot be written.
        """
        self.cells[cell["arm"], cell["seed"]] = cell
        lines = [json.dumps(each) + "\n" for each in self.cells.values()]
        write_atomically(self.out / CELLS, "".join(lines).encode())

    def _continue(self) -> None:
        try:
            old = json.loads((self.out / INFO).read_text(encoding="utf-8"))
            cells = self.out / CELLS
            old["settings"].setdefault("features", "random")  # earlier studies do not speak of them
            lines = cells.read_text(encoding="utf-8").splitlines() if cells.exists() else []
            read = [json.loads(line) for line in lines]
            self.cells = {(cell["arm"], cell["seed"]): cell for cell in read}
            arms = dict(old["arms"])
            earlier = [*old.get("earlier versions", []), old.get("versions", {})]
            self._earlier = [each for each in earlier if each != self._versions]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.out}: the record of its study is damaged ({type(error).__name__}: {error});"
                " choose another --out"
            ) from None
        changed = [
            said
            for part, facts in self._facts.items()
            for name, value in facts.items()
            for said in _differences(old.get(part, {}).get(name), value, name)
        ]
        changed += [
            said
            for name, what in self._arms.items()
            if name in arms
            for said in _differences(arms[name], what, f"arm {name}")
        ]
        if changed:
            said = "; ".join(changed[:SHOWN])
            said += f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            raise ConfigError(
                f"{self.out} holds a study that differs: {said}; take the same again (arms "
                "and seeds may be added), or choose another --out"
            )
        self._arms = {**arms, **self._arms}


def _differences(old: Any, new: Any, name: str) -> list[str]:
    """What differs, down to the values in objects."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            said
            for key in sorted({*old, *new})
            for said in _differences(old.get(key), new.get(key), f"{name} {key}")
        ]
    return [] if old == new else [f"{name}: {_short(old)}, now {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
