"""Every source of 2D weights, and every way in which one can be broken."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from twin import SMALL, flat
from weight_files import KINDS, Bomb, as_original, broken, written

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import NeurINO, convnext
from nnunet_neurino.transfer import inflate, inflate_into, load_2d_weights
from nnunet_neurino.transfer.flat import CONVNEXT

# `tiny` in these tests is the small network of `twin.py`.


@pytest.fixture(autouse=True)
def _small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in convnext.SIZES:
        size = SMALL if name == "tiny" else convnext.SIZES[name]
        monkeypatch.setitem(convnext.SIZES, name, size)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """As timm names it."""
    return {name: tensor.contiguous() for name, tensor in flat().float().state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_encoder(kind: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    weights = load_2d_weights(written(kind, state, tmp_path))
    assert weights is not None
    assert (weights.size, weights.scheme) == ("tiny", KINDS[kind])
    expected = inflate(state, "average")
    ours = inflate(weights, "average")
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_the_two_public_renamings_agree_with_timms_own_filter(state: dict[str, Tensor]) -> None:
    """The names that these tests write as Meta's are those that timm itself reads as Meta's."""
    from timm.models.convnext import checkpoint_filter_fn

    original = {name: t for name, t in as_original(state).items() if not name.startswith("norms.")}
    read = checkpoint_filter_fn(original, flat())
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_scratch() -> None:
    assert load_2d_weights("none") is None


def test_half_precision_becomes_single(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.bfloat16() for name, tensor in state.items()}, tmp_path / "half.safetensors")
    weights = load_2d_weights(tmp_path / "half.safetensors")
    assert weights is not None
    assert {tensor.dtype for tensor in weights.state.values()} == {torch.float32}


def test_published_file_names_do_not_decide_the_size(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(as_original(state), tmp_path / "dinov3_convnext_large.pth")
    weights = load_2d_weights(tmp_path / "dinov3_convnext_large.pth")
    assert weights is not None
    assert weights.size == "tiny"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("cut safetensors", "cut short"),
        ("cut empty safetensors", "cut short"),
        ("cut pth", "cut short"),
        ("cut pth, old format", "cut short"),
        ("cut empty pth", "cut short"),
        ("bomb", "nothing was executed"),
        ("bomb, old format", "nothing was executed"),
        ("zip bomb", "compressed inside"),
        ("stretched tensor", "shape"),
        ("missing weight", "'stages.2.blocks.1.norm.weight'"),
        ("missing stage", "four stages"),
        ("wrong shape", "(6, 1, 5, 5)"),
        ("foreign weight", "mlp.grn.weight"),
        ("wrong size", "sizes known"),
        ("not a number", "not finite"),
        ("integers", "floating-point"),
        ("two encoders", "2 ConvNeXt encoders"),
        ("a transformer", "no ConvNeXt encoder"),
        ("a list", "a list"),
        ("LFS placeholder", "git lfs pull"),
        ("text", "cut short"),
    ],
)
def test_broken_files_are_refused_in_one_line(kind: str, says: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = broken(kind, state, tmp_path)
    with pytest.raises(NeurinoError) as caught:
        load_2d_weights(path)
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 600
    assert not (tmp_path / "executed").exists()


def test_the_bomb_would_have_gone_off(tmp_path: Path) -> None:
    """Without this the tests above could pass for the wrong reason."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "executed")))
    assert (tmp_path / "executed").read_text() == "executed"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("./missing.pth", "no such file"),
        ("~nobody-of-this-name/tiny", "no such file"),
        ("", "is empty"),
        *((name, "neither a file") for name in ("a b", "what/is/this", "my--weights", "-x", "tiny..", "x" * 120)),
    ],
)
def test_sources_that_are_nothing(source: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NeurinoError, match=says):
        load_2d_weights(source)


def test_folders_without_weights(tmp_path: Path) -> None:
    with pytest.raises(NeurinoError, match="no weight file"):
        load_2d_weights(tmp_path)


def test_a_network_of_another_size_stays_as_it_was(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "tiny.safetensors")
    weights = load_2d_weights(tmp_path / "tiny.safetensors")
    assert weights is not None
    with torch.device("cpu"):
        network = NeurINO(size="small")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(NeurinoError, match="ConvNeXt-Tiny"):
        inflate_into(network, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_inflating_keeps_the_tensors_an_optimiser_holds(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "tiny.safetensors")
    weights = load_2d_weights(tmp_path / "tiny.safetensors")
    assert weights is not None
    network = NeurINO(in_channels=2)
    held = dict(network.named_parameters())
    inflate_into(network, weights, "center_sym")
    assert all(parameter is held[name] for name, parameter in network.named_parameters())
    expected = inflate(state, "center_sym", in_channels=2)
    assert all(torch.equal(held[f"encoder.{name}"], tensor) for name, tensor in expected.items())


def test_shapes_of_the_sizes_known() -> None:
    """Counts of the published encoders of three sizes (their final norm included)."""
    published = {"small": 49_454_688, "base": 87_566_464, "large": 196_230_336}
    for name, count in published.items():
        size = convnext.SIZES[name]
        total = sum(tensor.numel() for tensor in CONVNEXT.expected(size).values())
        assert total + 2 * size.widths[3] == count


def _in_new_process(code: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**variables, **environment}, capture_output=True, text=True, timeout=120
    )


def test_the_hub_cache_is_enough_and_its_absence_is_explained(tmp_path: Path) -> None:
    """Offline, one model is in the cache and another is not; and a hub that does not answer."""
    folder = tmp_path / "hub" / "models--timm--convnext_tiny.dinov3_lvd1689m"
    snapshot = folder / "snapshots" / "0123456789"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123456789")
    state = {name: torch.zeros(tensor.shape) for name, tensor in CONVNEXT.expected(SMALL).items()}
    save_file(state, snapshot / "model.safetensors")
    code = f"""
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import convnext
from nnunet_neurino.transfer import load_2d_weights
convnext.SIZES["tiny"] = convnext.ConvNeXtSize({SMALL.depths}, {SMALL.widths})
for source in ("convnext_tiny.dinov3_lvd1689m", "tiny", "timm/convnext_tiny.dinov3_lvd1689m"):
    print(load_2d_weights(source).size)
try:
    load_2d_weights("facebook/dinov3-convnext-tiny-pretrain-lvd1689m")
except NeurinoError as error:
    print(error)
"""
    offline = _in_new_process(code, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    *sizes, message = offline.stdout.splitlines()
    assert sizes == ["tiny"] * 3
    for part in ("HF_HUB_OFFLINE is set", "licence", "hf download facebook/dinov3-convnext-tiny-pretrain-lvd1689m"):
        assert part in message


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("LocalEntryNotFoundError", "cannot be reached"),
        ("GatedRepoError", "licence has not been accepted"),
        ("RepositoryNotFoundError", "no such page"),
        ("EntryNotFoundError", "none of model.safetensors"),
        ("ConnectionError", "the hub answered: broken"),
    ],
)
def test_what_the_hub_refuses_is_explained(error: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    kind = getattr(errors, error, None) or ConnectionError
    raised = kind.__new__(kind)  # their constructors want the answer of a server
    raised.args = ("broken\npipe",)

    def refuse(*_: object, **__: object) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(NeurinoError, match=says) as caught:
        load_2d_weights("someone/no-such-convnext")
    assert "hf download someone/no-such-convnext" in str(caught.value)
