"""A new plugin: a working distribution, written from plugins/template with the names replaced."""

from __future__ import annotations

import importlib.util
import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from simgan_aug import plugins
from simgan_aug.errors import ConfigError
from simgan_aug.files import write_atomically

PREFIX = "simgan-aug-"

FILES = (
    "README.md",
    "pyproject.toml",
    "simgan_aug_template.py",
    "tests/test_simgan_aug_template.py",
    "train.toml",
)
"""Of the template; a wheel has them too, under `simgan_aug/plugin_template`."""


@dataclass(frozen=True)
class Names:
    """What a plugin's things are called, of its distribution's name.

    Raises:
        ConfigError: the name cannot be one, or something of this name is there already.
    """

    distribution: str

    def __post_init__(self) -> None:
        """Reject a name that would not work."""
        words = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
        if not all(re.fullmatch(words, each) for each in (self.distribution, self.part)):
            raise ConfigError(
                "expected words of small letters and digits, with hyphens between, such as "
                f"{PREFIX}grain; got {self.distribution!r}"
            )
        if keyword.iskeyword(self.module) or importlib.util.find_spec(self.module):
            raise ConfigError(
                f"the module would be {self.module!r}, which Python has already; take another "
                f"name, such as {PREFIX}{self.part}"
            )
        for kind, known in (
            ("plugin", [plugin.name for plugin in plugins.plugins()]),
            ("refiner", plugins.parts("refiner")),
        ):
            if self.part in known:
                raise ConfigError(
                    f"there is a {kind} {self.part!r} already (see simgan-aug plugins); take "
                    "another name"
                )

    @property
    def module(self) -> str:
        """As it is imported."""
        return self.distribution.replace("-", "_")

    @property
    def part(self) -> str:
        """Of the refiner, and of the plugin in lists."""
        return self.distribution.removeprefix(PREFIX)

    @property
    def refiner(self) -> str:
        """Of its class."""
        return "".join(word.capitalize() for word in self.part.split("-")) + "Refiner"

    def put_into(self, text: str) -> str:
        """Text or file name of the template, with these names."""
        for old, new in (
            ("simgan-aug-template", self.distribution),
            ("simgan_aug_template", self.module),
            ("TemplateRefiner", self.refiner),
            ('"template"', f'"{self.part}"'),
            ("template = ", f"{self.part} = "),
        ):
            text = text.replace(old, new)
        return text


def write_plugin(name: str, out: Path) -> Names:
    """Write a distribution with a refiner, its test and a config to train it.

    Args:
        name: of the distribution.
        out: folder that does not exist yet.

    Raises:
        ConfigError: the name does not work, or the folder exists.
        OutputError: it cannot be written.
    """
    names = Names(name)
    if out.exists():
        raise ConfigError(f"{out} exists; remove it, or choose another folder with --out")
    source = template()
    for file in FILES:
        text = names.put_into((source / file).read_text(encoding="utf-8"))
        write_atomically(out / names.put_into(file), text.encode())
    return names


def template() -> Path:
    """The folder of the template: within an installed package, or beside the package's source."""
    packed = Path(__file__).parent / "plugin_template"
    return packed if packed.is_dir() else Path(__file__).parents[1] / "plugins" / "template"
