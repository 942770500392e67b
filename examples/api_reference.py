"""The API reference, made from the docstrings: `pip install 'simgan-aug[docs]'`, then

python examples/api_reference.py --out api/   # open api/index.html
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path

import pdoc

import simgan_aug


def modules() -> list[str]:
    """The package and each module right below it; pdoc finds what lies further down."""
    below = {each.name for each in pkgutil.iter_modules(simgan_aug.__path__, "simgan_aug.")}
    hidden = []
    for name in ("simgan_aug.kernels", "simgan_aug.transforms.torchvision"):
        try:
            importlib.import_module(name)
        except simgan_aug.SimganAugError as error:
            print(f"left out: {error}")
            hidden.append(name)
    shown = sorted(below - {"simgan_aug.presets", *hidden})
    return ["simgan_aug", *shown, *(f"!{name}" for name in hidden if name not in below)]


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pages")
    out = parser.parse_args().out
    for name in simgan_aug.__all__:  # loaded at their first use, which pdoc does not make
        setattr(simgan_aug, name, getattr(simgan_aug, name))
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*modules(), output_directory=out)
    print(f"reference: {out / 'index.html'}")


if __name__ == "__main__":
    main()
