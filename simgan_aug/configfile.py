"""Settings from TOML files and presets.

A file states only what differs from its preset (the key `preset`, else "default"):

    preset = "default"

    [refiner]
    features = 32

    [regularization.labels]
    background = 0.1

A part (refiner, discriminator, loss) is a registered `name` and the options of its factory; so is
each further term of regularization, which has a weight besides:

    [[regularization.terms]]
    name = "patch-nce"
    weight = 0.5
    temperature = 0.07
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from simgan_aug.config import Config, Part, Training
from simgan_aug.errors import ConfigError, did_you_mean


def presets() -> list[str]:
    """Names that `load_preset` knows, those of plugins among them."""
    from simgan_aug import plugins  # which imports torch, and our own need none of it

    return sorted(["default", "wide", *plugins.parts("preset")])


def load_preset(name: str) -> Config:
    """A preset by name.

    Raises:
        ConfigError: there is none of this name, or the file of a plugin's cannot be had or is
            wrong; names preset and plugin.
    """
    if name in ("default", "wide"):
        return Config(training=Training(student_steps=3000 if name == "default" else 0))
    from simgan_aug import plugins

    if name not in presets():
        known = did_you_mean(name, presets())
        raise ConfigError(f"no preset named {name!r}{known}{plugins.registry().broken}")
    who = f"preset {name!r} of {plugins.owner('preset', name)}"
    try:
        path = Path(plugins.build("preset", name))
    except Exception as error:
        raise ConfigError(f"{who}: {type(error).__name__}: {error}") from error
    try:
        raw = _read(path)
    except ConfigError as error:
        raise ConfigError(f"{who}: {error}") from None
    if "preset" in raw:
        raise ConfigError(f"{who}: {path}: it stands on 'default'; leave out the key preset")
    return parse(raw, source=who)


def load_config(path: str | os.PathLike[str]) -> Config:
    """A TOML file over its preset.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has an unknown key, a wrong type or an
            impossible value; names the file, the table and the key.
    """
    return parse(_read(Path(path)), source=str(path))


def parse(raw: Mapping[str, Any], source: str, is_whole: bool = False) -> Config:
    """TOML tables over their preset.

    Args:
        raw: the tables.
        source: of them, for messages.
        is_whole: whether they are what `Config.to_builtins` gave: their parts are themselves, and
            not over those of a preset.

    Raises:
        ConfigError: as `load_config`; `source` is named in the message.
    """
    tables = dict(raw)
    preset = tables.pop("preset", "default")
    if not isinstance(preset, str):
        raise ConfigError(f"{source}: preset must be a name, got {preset!r}")
    try:
        base = load_preset(preset)
    except ConfigError as error:
        raise ConfigError(f"{source}: preset: {error}") from None
    sections = {section.name: getattr(base, section.name) for section in dataclasses.fields(Config)}
    for name, table in tables.items():
        if name not in sections:
            raise ConfigError(
                f"{source}: unknown table or key {name!r}"
                f"{did_you_mean(name, [*sections, 'preset'])}"
            )
        if not isinstance(table, Mapping):
            raise ConfigError(f"{source}: {name} must be a table ([{name}]), got {table!r}")
        where = f"{source}: [{name}]"
        if isinstance(sections[name], Part):
            sections[name] = _part(sections[name], table, where, is_whole)
        else:
            sections[name] = _section(sections[name], table, where)
    given = tables.get("training", {})
    if "steps" in given and "student_steps" not in given:
        training = sections["training"]
        student = base.training.of_steps(training.steps).student_steps  # in proportion
        sections["training"] = dataclasses.replace(training, student_steps=student)
    if sections["refiner"].name != base.refiner.name and not is_whole:
        if not _speaks_of_student(tables):
            sections["training"] = dataclasses.replace(sections["training"], student_steps=0)
        sections["student"] = _student(base, sections["refiner"].name, tables, source)
    asked = "student" in tables and "student_steps" not in given and not is_whole
    if asked and not sections["training"].student_steps:
        raise ConfigError(
            f"{source}: [student] says what a student is, and this preset teaches none: set "
            "training.student_steps (3000, say), or leave [student] out"
        )
    try:
        return Config(**sections)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _student(base: Config, kind: str, tables: Mapping[str, Any], source: str) -> Part:
    """The student of another kind of refiner than the preset's: of that kind, unless it is named.

    Raises:
        ConfigError: it is to learn, and nothing says what it is.
    """
    table = tables.get("student", {})
    if "student" not in tables and _speaks_of_student(tables):
        raise ConfigError(
            f"{source}: a student of a {kind!r} is asked for, and [student] does not say how it is "
            "smaller"
        )
    named = isinstance(table, Mapping) and table.get("name") == base.student.name
    return _part(base.student if named else Part(name=kind), table, f"{source}: [student]")


def _speaks_of_student(tables: Mapping[str, Any]) -> bool:
    """Whether a refiner of another kind than the preset's is to have a student."""
    return "student" in tables or bool(tables.get("training", {}).get("student_steps"))


def _read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the config file: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # a path with a NUL, bad UTF-8, bad TOML
        raise ConfigError(f"{path}: not a TOML file: {error}") from None


def _part(base: Part, table: Mapping[str, Any], where: str, is_whole: bool = False) -> Part:
    options = dict(table)
    name = options.pop("name", base.name)
    nested = options.pop("options", {})
    if not isinstance(name, str) or not isinstance(nested, Mapping):
        raise ConfigError(f"{where}: expected a name and its options, got {dict(table)!r}")
    kept = base.options if name == base.name and not is_whole else {}
    return Part(name=name, options={**kept, **nested, **options})


def _section(base: Any, table: Mapping[str, Any], where: str) -> Any:
    known = [item.name for item in dataclasses.fields(base)]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(known)})"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")
    merged = {**{key: getattr(base, key) for key in known}, **table}
    if isinstance(table.get("terms"), list):
        merged["terms"] = [_term(each) for each in table["terms"]]
    try:
        return msgspec.convert(merged, type(base))
    except msgspec.ValidationError as error:
        message, _, key = str(error).partition(" - at `$.")
        key = key.rstrip("`")
        if isinstance(usual := getattr(base, key, None), tuple):
            message += f": by default it is {[*usual]}"
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{message}") from None


def _term(table: Any) -> Any:
    """A table of a term, what is not its own put among the options; anything else as it is."""
    if not isinstance(table, Mapping) or not isinstance(table.get("options", {}), Mapping):
        return table
    own = {key: value for key, value in table.items() if key in ("name", "weight")}
    beside = {k: v for k, v in table.items() if k not in own and k != "options"}
    return {**own, "options": {**table.get("options", {}), **beside}}
