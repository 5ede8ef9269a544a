"""The values that networks start with, against those of the layers that the published network is made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import MedNeXt, NeurINO


@pytest.mark.parametrize("network", [NeurINO, MedNeXt])
def test_published_start_is_that_of_transposed_convolutions(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    decoder = network(start_values="published", num_classes=3).decoder
    for layer in (*decoder.seg_layers, *(level.up.shortcut for level in decoder.levels)):
        reference = nn.ConvTranspose3d(layer.in_features, layer.out_features, 1)
        bound = layer.out_features**-0.5
        for ours, theirs in ((layer.weight, reference.weight), (layer.bias, reference.bias)):
            assert ours.abs().max() <= bound
            if ours.numel() > 500:
                assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)
                assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.05)


def test_the_encoder_starts_as_ever() -> None:
    states = []
    for start_values in ("linear", "published"):
        torch.manual_seed(0)
        states.append(NeurINO(size="atto", start_values=start_values).encoder.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(("start_values", "low", "high"), [("linear", 0.1, 0.8), ("published", 1.0, 20.0)])
def test_first_logits(start_values: str, low: float, high: float) -> None:
    """The published network's logits start with a deviation of 1.4 to 15.9, ours with 0.26 to 0.62."""
    torch.manual_seed(0)
    network = NeurINO(norm="batch", grn=True, start_values=start_values).train()
    with torch.no_grad():
        deviations = [logits.std().item() for logits in network(torch.randn(2, 1, 32, 32, 32))]
    assert all(low < deviation < high for deviation in deviations)


def test_unknown_start_values_are_named() -> None:
    with pytest.raises(NeurinoError, match="start values 'he'"):
        NeurINO(size="atto", start_values="he")
