"""`python -m simgan_aug`: the command `simgan-aug`, of this very interpreter."""

import sys

from simgan_aug.cli import main

if __name__ == "__main__":
    sys.exit(main())
