"""From two dimensions to three: where 2D weights come from, how they become 3D, published checkpoints to ours."""

from nnunet_neurino.transfer.published import PublishedNetwork, describe_published, from_published

__all__ = ["PublishedNetwork", "describe_published", "from_published"]
