"""`python -m simgan_aug.cli`."""

import sys

from simgan_aug.cli import main

sys.exit(main())
