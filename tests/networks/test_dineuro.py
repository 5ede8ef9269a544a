"""DINeuro keeps nnU-Net's contract: shapes, heads, switches, JSON-able arguments, any number of slices."""

from __future__ import annotations

import inspect
import json
import pydoc
import warnings

import pytest
import torch

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import DINeuro

ATTO = {"in_channels": 1, "num_classes": 2, "vit": "atto"}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_the_name_and_arguments_users_rely_on() -> None:
    with torch.device("meta"):
        network = DINeuro(in_channels=1, num_classes=2, vit="small", tubes=True, transfer="center")
    parameters = list(inspect.signature(DINeuro).parameters)
    assert parameters[:5] == ["in_channels", "num_classes", "vit", "tubes", "transfer"]
    assert network.size.width == 384
    for name in (network.key_to_encoder, network.key_to_stem, *network.keys_to_in_proj):
        assert isinstance(network.get_submodule(name), torch.nn.Module)
    assert isinstance(network.get_parameter(network.key_to_lpe), torch.nn.Parameter)


@pytest.mark.parametrize("transfer", ["center", "average"])
def test_it_starts_as_an_inflated_network(transfer: str) -> None:
    kernel = DINeuro(**ATTO, transfer=transfer).encoder.patch_embed.proj.weight
    if transfer == "center":
        assert torch.count_nonzero(kernel[:, :, [0, 1, 3, 4]]) == 0
        assert torch.count_nonzero(kernel[:, :, 2]) == kernel[:, :, 2].numel()
    else:
        assert all(torch.equal(kernel[:, :, z], kernel[:, :, 0]) for z in range(5))
    scratch = DINeuro(**ATTO, transfer="scratch").encoder.patch_embed.proj.weight
    assert not torch.equal(scratch[:, :, 0], scratch[:, :, 1])


@pytest.mark.parametrize(
    ("options", "divisors"),
    [
        ({}, (1, 2, 4, 8)),
        ({"vit": "atto_v3"}, (1, 2, 4, 8)),
        ({"magnify": 2}, (1, 2, 4)),
        ({"decoder": "upernet"}, (1, 4)),
        ({"decoder": "upernet", "magnify": 2.24}, (1, 4)),
    ],
)
@pytest.mark.parametrize("shape", [(5, 100, 100), (1, 64, 32), (20, 17, 48)])
def test_logits_of_any_size(options: dict, divisors: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    network = DINeuro(**{**ATTO, "num_classes": 3, **options})
    rows = network.levels.rows
    assert len(rows) - 1 == len(divisors), "nnU-Net makes a target for each row of strides but the last"
    outputs = network(torch.randn(2, 1, *shape))
    z, y, x = shape
    assert [tuple(o.shape) for o in outputs] == [(2, 3, z, -(-y // d), -(-x // d)) for d in divisors]
    network.decoder.deep_supervision = False
    assert network(torch.randn(1, 1, *shape)).shape == (1, 3, *shape)


@pytest.mark.parametrize("decoder", ["pyramid", "upernet"])
def test_logits_stay_where_the_image_is_when_tokens_reach_beyond_it(decoder: str) -> None:
    network = DINeuro(**ATTO, decoder=decoder, tubes=False).eval()
    image = torch.randn(1, 1, 3, 44, 100)
    padded = torch.zeros(1, 1, 3, 48, 112)
    padded[..., :44, :100] = image
    with torch.no_grad():
        short, full = network(image), network(padded)
    for ours, whole in zip(short, full, strict=True):
        y, x = ours.shape[3:]
        torch.testing.assert_close(ours, whole[..., :y, :x], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("decoder", ["pyramid", "upernet"])
def test_heads_are_there_either_way_and_idle_ones_need_no_gradient(decoder: str) -> None:
    on = DINeuro(**ATTO, decoder=decoder)
    off = DINeuro(**ATTO, decoder=decoder, deep_supervision=False)
    assert set(on.state_dict()) == set(off.state_dict())
    off.load_state_dict(on.state_dict())
    assert [p.requires_grad for p in off.decoder.seg_layers[1].parameters()] == [False, False]
    # DDP: every parameter that wants a gradient gets one, the tubes' behind the closed gate too.
    off(torch.randn(1, 1, 5, 48, 48)).sum().backward()
    assert not [name for name, p in off.named_parameters() if p.requires_grad and p.grad is None]


def test_the_plans_describe_it_completely() -> None:
    options = {"vit": "atto", "tube_step": [0.15, 0.5, 0.5], "layers": [0, 1, 2, 3], "tube_length": 64, "norm": "layer"}
    network = DINeuro(1, 2, **options)
    options["strides"] = network.levels.rows
    again = pydoc.locate("nnunet_neurino.networks.DINeuro")(
        input_channels=1, num_classes=2, **json.loads(json.dumps(options)), deep_supervision=False
    )
    again.load_state_dict(network.state_dict())
    image = torch.randn(1, 1, 5, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.eval()(image), network.eval()(image)[0])


def test_tokens_of_a_slice_depend_on_its_block_alone() -> None:
    network = DINeuro(**ATTO, transfer="scratch", tubes=False).eval()
    volume = torch.randn(1, 1, 9, 32, 32)
    changed = volume.clone()
    changed[:, :, 7] += 1
    with torch.no_grad():
        difference = (network.encoder(changed)[-1] - network.encoder(volume)[-1]).abs().amax((0, 1, 3, 4))
    assert difference[:5].max() == 0
    assert difference[5:].min() > 0


def test_a_whole_patch_at_once_is_each_slice_alone() -> None:
    network = DINeuro(**ATTO, transfer="scratch", tubes=False, decoder="upernet", norm="layer").eval()
    volume = torch.randn(1, 1, 9, 32, 48)
    with torch.no_grad():
        together = network(volume)[0]
        for z in (2, 4, 6):
            block = network(volume[:, :, z - 2 : z + 3])[0][:, :, 2]
            torch.testing.assert_close(together[:, :, z], block, atol=1e-5, rtol=1e-5)


def test_tubes_add_what_lies_far_away() -> None:
    network = DINeuro(**ATTO, transfer="center", tube_gate=1.0).eval()
    volume = torch.zeros(1, 1, 40, 32, 32)
    changed = volume.clone()
    changed[:, :, 39, 7, 7] = 10
    with torch.no_grad():
        difference = (network.encoder(changed)[-1] - network.encoder(volume)[-1]).abs().amax((0, 1, 3, 4))
    assert difference[0] > 0, "the tube along z ends 128 slices away"


def test_checkpointing_changes_nothing() -> None:
    image = torch.randn(1, 1, 5, 32, 32)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        network = DINeuro(**ATTO, checkpointing=checkpointing, tube_gate=1.0).train()
        sum(o.square().mean() for o in network(image)).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_it_is_one_graph_for_the_compiler() -> None:
    network = DINeuro(**ATTO, tube_gate=1.0).eval()
    image = torch.randn(1, 1, 5, 32, 32)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        for one, other in zip(compiled(image), network(image), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("vit", ["atto", "atto_v3"])
def test_any_floating_point_numbers_will_do(vit: str) -> None:
    network = DINeuro(**{**ATTO, "vit": vit}, tube_gate=1.0).eval()
    image = torch.randn(1, 1, 3, 32, 48)
    with torch.no_grad():
        single, double = network(image)[0], network.double()(image.double())[0]
        half = network.bfloat16()(image.bfloat16())[0]
        shapes = network.to("meta")(image.bfloat16().to("meta"))[0]
    torch.testing.assert_close(single, double.float(), atol=1e-5, rtol=1e-4)
    assert (double.dtype, half.dtype) == (torch.float64, torch.bfloat16)
    assert (half - double).abs().max() < 0.1 * double.abs().max()
    assert shapes.shape == single.shape


def test_tracing_sees_the_same() -> None:
    network = DINeuro(**ATTO, tube_gate=1.0, deep_supervision=False).eval()
    image = torch.randn(1, 1, 3, 32, 48)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants
        traced = torch.jit.trace(network, image, check_trace=False)
    with torch.no_grad():
        torch.testing.assert_close(traced(image), network(image), atol=1e-5, rtol=1e-5)


def test_it_learns_and_the_gate_opens() -> None:
    network = DINeuro(**ATTO, tube_length=64).train()
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    image = torch.randn(1, 1, 5, 32, 32)
    truth = (image[:, 0] > 0.5).long()
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(network(image)[0], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0], "thin bright things are found at full resolution"
    tubes = network.encoder.tubes
    assert tubes.gate.abs().max() > 0
    assert all(view.head[-1].weight.abs().max() > 0 for view in tubes.views), "the tubes have begun to bend"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vit": "huge"}, "vit 'huge'.*small"),
        ({"transfer": "triplane"}, "transfer 'triplane'.*center"),
        ({"decoder": "unet"}, "decoder 'unet'.*pyramid"),
        ({"magnify": 0.5}, "magnify 0.5"),
        ({"magnify": 3}, "magnify 3.*1, 2 or 4"),
        ({"block_depth": 4}, "block depth 4.*odd"),
        ({"layers": [0, 1, 2, 2]}, "layers.*end with 3"),
        ({"layers": [1, 2, 3]}, "layers.*four"),
        ({"magnify": float("nan")}, "magnify nan"),
        ({"decoder_width": 0}, "decoder_width 0"),
        ({"tube_step": [1.0, 0.5]}, "tube_step.*three"),
        ({"strides": [[1, 1, 1], [2, 2, 2]]}, "strides.*expected"),
        ({"input_channels": 2}, "contradict"),
        ({"norm": "none"}, "norm 'none'"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(NeurinoError, match=message):
        DINeuro(**{**ATTO, **options})
