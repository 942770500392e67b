"""`python -m simgan_aug.cli`."""

import sys

from simgan_aug.cli import main

if __name__ == "__main__":
    sys.exit(main())
