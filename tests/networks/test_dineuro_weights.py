"""Where a ViT's weights come from: every library's names, one result; every mistake, one line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_dineuro_vit import small_twin
from torch import Tensor

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import DINeuro, NeurINO
from nnunet_neurino.transfer import hub
from nnunet_neurino.transfer.vit import VIT_PAGES, inflate_vit, inflate_vit_into, load_vit_weights


@pytest.fixture(scope="module", params=["atto", "atto_v3"])
def twin_state(request: pytest.FixtureRequest) -> tuple[str, dict[str, Tensor]]:
    state = small_twin(request.param).state_dict()
    return request.param, {name: tensor.clone() for name, tensor in state.items() if "k_bias" not in name}


def as_meta(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Meta's original files name the weights of both."""
    result = {"rope_embed.periods": torch.ones(8), "mask_token": torch.zeros(1, 64)} if "reg_token" in state else {}
    for name, tensor in state.items():
        if name.endswith("q_bias"):
            # DINOv3's layer multiplies by the mask; with rotary positions a bias of the keys would count.
            key = torch.full_like(tensor, 3.0)
            result[name.replace("q_bias", "qkv.bias")] = torch.cat([tensor, key, state[name.replace("q_", "v_")]])
            result[name.replace("q_bias", "qkv.bias_mask")] = torch.ones(3 * len(tensor))
            result[name.replace("q_bias", "qkv.bias_mask")][len(tensor) : 2 * len(tensor)] = 0
        elif not name.endswith("v_bias"):
            name = name.replace("reg_token", "storage_tokens").replace("gamma_", "ls")
            result[f"{name}.gamma" if name.endswith(("ls1", "ls2")) else name] = tensor
    return result


def as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the transformers library names the weights of DINO's ViT and of DINOv3's."""
    rotary = "reg_token" in state
    block = {
        "norm1": "norm1" if rotary else "layernorm_before",
        "norm2": "norm2" if rotary else "layernorm_after",
        "attn.proj": "attention.o_proj" if rotary else "attention.output.dense",
        "mlp.fc1": "mlp.up_proj" if rotary else "intermediate.dense",
        "mlp.fc2": "mlp.down_proj" if rotary else "output.dense",
    }
    parts = ["attention.{}_proj" if rotary else "attention.attention.{}"] * 3
    parts = [p.format(n) for p, n in zip(parts, "qkv" if rotary else ("query", "key", "value"), strict=True)]
    result = {}
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            prefix = f"layer.{number}" if rotary else f"encoder.layer.{number}"
            layer, _, kind = rest.rpartition(".")
            if layer in block:
                result[f"{prefix}.{block[layer]}.{kind}"] = tensor
            elif layer == "attn.qkv":
                for part, piece in zip(parts, tensor.chunk(3), strict=True):
                    result[f"{prefix}.{part}.{kind}"] = piece.clone()
            elif rest in ("attn.q_bias", "attn.v_bias"):
                result[f"{prefix}.attention.{rest[5]}_proj.bias"] = tensor
            else:
                result[f"{prefix}.layer_scale{rest[-1]}.lambda1"] = tensor
        elif name.startswith("patch_embed.proj"):
            kind = name.rpartition(".")[2]
            result[f"embeddings.patch_embeddings.{'' if rotary else 'projection.'}{kind}"] = tensor
        elif name.startswith("norm."):
            result[name if rotary else name.replace("norm", "layernorm")] = tensor
        else:
            theirs = {"pos_embed": "position_embeddings", "reg_token": "register_tokens", "cls_token": "cls_token"}
            result[f"embeddings.{theirs[name]}"] = tensor
    return result | ({} if rotary else {"pooler.dense.weight": torch.zeros(2, 2)})


def as_converted_by_version_0_1(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As ``neurino weights convert`` named them when our networks had names of their own."""
    replaced = {"patch_embed.proj": "patch_embed", ".attn.": ".", ".mlp.": ".", "gamma_": "gamma"}
    result = {}
    for name, tensor in state.items():
        for new, old in replaced.items():
            name = name.replace(new, old)
        result[name] = tensor
    return result


def test_all_libraries_names_give_the_same(twin_state: tuple[str, dict[str, Tensor]], tmp_path: Path) -> None:
    vit, state = twin_state
    save_file(state, tmp_path / "timm.safetensors")
    torch.save({"teacher": {f"module.backbone.{k}": v for k, v in as_meta(state).items()}}, tmp_path / "meta.pth")
    save_file(as_transformers(state), tmp_path / "transformers.safetensors")
    reference = load_vit_weights(tmp_path / "timm.safetensors")
    assert reference is not None
    assert reference.size == vit
    assert reference.sha256 == hashlib.sha256((tmp_path / "timm.safetensors").read_bytes()).hexdigest()
    assert reference.architecture.startswith(f"ViT {vit}, ")
    for name in ("meta.pth", "transformers.safetensors"):
        weights = load_vit_weights(tmp_path / name)
        assert weights.size == vit
        assert set(weights.state) == set(reference.state)
        assert all(torch.equal(tensor, reference.state[key]) for key, tensor in weights.state.items()), name
    save_file(as_converted_by_version_0_1(reference.state), tmp_path / "own.safetensors")
    own = load_vit_weights(tmp_path / "own.safetensors")
    assert own.scheme == "nnunet_neurino"
    assert own.state.keys() == reference.state.keys()
    assert all(torch.equal(tensor, own.state[key]) for key, tensor in reference.state.items())


@pytest.mark.parametrize("rule", ["center", "average"])
@pytest.mark.parametrize("length", [None, 256, 32])
def test_into_a_network_in_place(
    twin_state: tuple[str, dict[str, Tensor]], tmp_path: Path, rule: str, length: int | None
) -> None:
    vit, state = twin_state
    save_file(state, tmp_path / "vit.safetensors")
    network = DINeuro(2, 3, vit=vit, transfer=rule, tubes=length is not None, tube_length=length or 256)
    kept = {id(p) for p in network.parameters()}
    inflate_vit_into(network, load_vit_weights(tmp_path / "vit.safetensors"))
    assert {id(p) for p in network.parameters()} == kept
    # Two channels: each has half of the grey kernel.
    grey = state["patch_embed.proj.weight"].sum(1)
    weight = network.encoder.patch_embed.proj.weight
    torch.testing.assert_close(weight.sum((1, 2)), grey, atol=1e-6, rtol=1e-5)
    assert torch.equal(weight[:, 0], weight[:, 1])
    assert (torch.count_nonzero(weight[:, :, 0]) == 0) == (rule == "center")
    if length is not None:
        taps = network.encoder.tubes.views[1].weight.sum(1)
        torch.testing.assert_close(taps, grey.flatten(1).unflatten(1, (length, -1)).sum(-1), atol=1e-6, rtol=1e-5)


def test_inflating_does_not_change_the_source(twin_state: tuple[str, dict[str, Tensor]]) -> None:
    _, state = twin_state
    before = {name: tensor.clone() for name, tensor in state.items()}
    for tensor in inflate_vit(state, "average", in_channels=3, tube_length=256).values():
        tensor.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_none_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_vit_weights("none") is None
    asked = []

    def fetch(name: str, source: str | None = None) -> Path:
        asked.append(name)
        raise NeurinoError("not in the cache")

    monkeypatch.setattr(hub, "fetch", fetch)
    for size in VIT_PAGES:
        with pytest.raises(NeurinoError, match="not in the cache"):
            load_vit_weights(size)
    assert asked == list(VIT_PAGES.values())


def broken(state: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    state = dict(state)
    if what == "missing":
        del state["blocks.2.mlp.fc1.weight"]
    elif what == "shape":
        state["patch_embed.proj.weight"] = torch.zeros(64, 3, 8, 8)
    elif what == "foreign":
        state["blocks.1.attn.lora.weight"] = torch.zeros(2)
    elif what == "nan":
        state["norm.bias"] = torch.full((64,), float("nan"))
    elif what == "integers":
        state["norm.bias"] = torch.zeros(64, dtype=torch.int32)
    elif what == "deeper":
        state |= {name.replace("blocks.0.", "blocks.4."): t.clone() for name, t in state.items() if "ks.0." in name}
    elif what == "convnext":
        state = {"stem.0.weight": torch.zeros(96, 3, 4, 4)}
    elif what == "two":
        state |= {f"second.{name}": tensor.clone() for name, tensor in state.items()}
    return state


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"1 weights.*are missing.*fc1"),
        ("shape", r"'patch_embed.proj.weight' has shape \(64, 3, 8, 8\)"),
        ("foreign", "'blocks.1.attn.lora.weight' does not belong to a ViT"),
        ("nan", "'norm.bias'.*not finite"),
        ("integers", "'norm.bias' holds torch.int32"),
        ("deeper", "width 64 and 5 blocks"),
        ("convnext", "no vision transformer among 1 weights"),
        ("two", "2 vision transformers"),
    ],
)
def test_wrong_files_are_named(
    twin_state: tuple[str, dict[str, Tensor]], tmp_path: Path, what: str, message: str
) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(broken(twin_state[1], what), path)
    with pytest.raises(NeurinoError, match=message) as error:
        load_vit_weights(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused_whole(
    twin_state: tuple[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    vit, state = twin_state
    save_file(state, tmp_path / "vit.safetensors")
    weights = load_vit_weights(tmp_path / "vit.safetensors")
    network = DINeuro(vit="atto" if vit == "atto_v3" else "atto_v3")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(NeurinoError, match=f"ViT {vit}, which the network is not"):
        inflate_vit_into(network, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(NeurinoError, match="NeurINO has no ViT"):
        inflate_vit_into(NeurINO(size="atto"), weights)
    with pytest.raises(NeurinoError, match="rule 'triplane'"):
        inflate_vit_into(DINeuro(vit=vit), weights, "triplane")


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"cls_token": Path}))
    with pytest.raises(NeurinoError, match="nothing was executed"):
        load_vit_weights(path)


def test_the_weights_command_reads_and_converts_vits(
    twin_state: tuple[str, dict[str, Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from nnunet_neurino.cli.main import main

    vit, state = twin_state
    source, target = tmp_path / "vit.safetensors", tmp_path / "own.safetensors"
    save_file(state, source)
    assert main(["weights", "check", "--vit", str(source)]) == 0
    assert f"ViT {vit}" in capsys.readouterr().out
    assert main(["weights", "convert", "--vit", str(source), "-o", str(target)]) == 0
    before, after = load_vit_weights(source), load_vit_weights(target)
    assert after.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert all(torch.equal(tensor, before.state[name]) for name, tensor in after.state.items())
    assert main(["weights", "check", str(source)]) == 1
    assert "no ConvNeXt encoder" in capsys.readouterr().err
    assert main(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(page in printed for page in VIT_PAGES.values())
