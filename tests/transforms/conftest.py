"""What the tests of transforms need before they import their host libraries."""

import torchvision_ops

torchvision_ops.install()
