"""From two dimensions to three: where 2D weights come from, how they become 3D, published checkpoints to ours."""

from nnunet_neurino.transfer.inflate import RULES, default_kernel_depth, inflate, inflate_into, inflate_kernel
from nnunet_neurino.transfer.published import PublishedNetwork, describe_published, from_published
from nnunet_neurino.transfer.weights import Weights2D, load_2d_weights

__all__ = [
    "RULES",
    "PublishedNetwork",
    "Weights2D",
    "default_kernel_depth",
    "describe_published",
    "from_published",
    "inflate",
    "inflate_into",
    "inflate_kernel",
    "load_2d_weights",
]
