"""The memory estimate against what PyTorch really keeps for the backward pass."""

from __future__ import annotations

import pytest
import torch

from nnunet_neurino.networks import MedNeXt, NeurINO
from nnunet_neurino.trainers import memory


def bytes_kept(network: torch.nn.Module, patch: tuple[int, int, int], channels: int = 1) -> int:
    """Bytes of all storages that one forward pass keeps, the parameters' own excepted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    image = torch.zeros(1, channels, *patch)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        outputs = network(image)
    del outputs
    return sum(kept.values())


@pytest.mark.parametrize("patch", [(32, 32, 32), (16, 64, 64)])
@pytest.mark.parametrize(
    "network",
    [NeurINO(size="atto", norm="group", grn=True), NeurINO(size="atto", norm="batch"), MedNeXt(size="S")],
    ids=["group", "batch", "mednext"],
)
def test_bytes_for_each_number_in_a_feature_map(network: torch.nn.Module, patch: tuple[int, int, int]) -> None:
    numbers = network.compute_conv_feature_map_size(patch)
    kept = bytes_kept(network.train(), patch) / numbers
    assert kept <= 1.1 * memory.BYTES_KEPT
    if not any(isinstance(module, torch.nn.BatchNorm3d) for module in network.modules()):
        # With batch norm, CPUs take a path that keeps less; the estimate is for GPUs.
        assert kept >= 0.8 * memory.BYTES_KEPT


def test_checkpointing_keeps_at_most_the_share_it_is_planned_with() -> None:
    patch = (32, 32, 32)
    network = NeurINO(size="atto", norm="group", grn=True, checkpointing=True).train()
    less = bytes_kept(network, patch)
    # One block at a time is there as a whole on the way back; the largest is one of full resolution.
    largest = bytes_kept(network.decoder.levels[0].blocks[0], patch, 20)
    whole = bytes_kept(NeurINO(size="atto", norm="group", grn=True).train(), patch)
    assert (less + largest) / whole <= memory.CHECKPOINTING_SHARE


def test_the_estimate_grows_with_patch_batch_and_network() -> None:
    def estimate(size: str, edge: int, batch: int) -> float:
        return memory.training_memory("nnunet_neurino.networks.NeurINO", {"size": size}, (edge,) * 3, batch, 1, 2)

    assert estimate("tiny", 64, 2) < estimate("tiny", 64, 4) < estimate("tiny", 96, 4) < estimate("base", 96, 4)
    # Activations are in proportion to voxels, weights are not.
    fixed = 2 * estimate("tiny", 64, 1) - estimate("tiny", 64, 2)
    assert estimate("tiny", 128, 1) - fixed == pytest.approx(8 * (estimate("tiny", 64, 1) - fixed), rel=1e-6)
