"""From two dimensions to three: where 2D weights come from, how they become 3D, published checkpoints to ours."""

from nnunet_neurino.transfer.inflate import RULES, default_kernel_depth, inflate, inflate_into, inflate_kernel
from nnunet_neurino.transfer.published import PublishedNetwork, describe_published, from_published
from nnunet_neurino.transfer.vit import VIT_PAGES, fill_slice_encoder, inflate_vit, inflate_vit_into, load_vit_weights
from nnunet_neurino.transfer.weights import Weights2D, load_2d_weights

__all__ = [
    "RULES",
    "VIT_PAGES",
    "PublishedNetwork",
    "Weights2D",
    "default_kernel_depth",
    "describe_published",
    "fill_slice_encoder",
    "from_published",
    "inflate",
    "inflate_into",
    "inflate_kernel",
    "inflate_vit",
    "inflate_vit_into",
    "load_2d_weights",
    "load_vit_weights",
]
