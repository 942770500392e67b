import torch

# Tiny tensors: more threads than one only wait for each other, and beside xdist's workers they crawl.
torch.set_num_threads(1)
