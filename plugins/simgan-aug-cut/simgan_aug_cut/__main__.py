"""Prints where a recipe lies: `simgan-aug train --config "$(python -m simgan_aug_cut fastcut)"`."""

import sys

from simgan_aug.errors import ConfigError
from simgan_aug_cut import RECIPES, recipe

if len(sys.argv) != 2:
    sys.exit(f"usage: python -m simgan_aug_cut {{{','.join(RECIPES)}}}")
try:
    print(recipe(sys.argv[1]))
except ConfigError as error:
    sys.exit(str(error))
