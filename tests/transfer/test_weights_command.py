"""``neurino weights``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from twin import SMALL, flat

from nnunet_neurino.cli.main import main
from nnunet_neurino.networks import convnext
from nnunet_neurino.transfer import inflate, load_2d_weights


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A timm file of the small network of ``twin.py``, which these tests call tiny."""
    monkeypatch.setitem(convnext.SIZES, "tiny", SMALL)
    torch.save(flat().float().state_dict(), tmp_path / "source.pth")
    return tmp_path / "source.pth"


def test_check_says_what_a_file_is(source: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["weights", "check", str(source)]) == 0
    printed = capsys.readouterr().out
    assert "ConvNeXt-Tiny" in printed
    assert "timm" in printed


def test_a_converted_file_is_the_same_encoder(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "tiny.safetensors"
    assert main(["weights", "convert", str(source), "-o", str(target)]) == 0
    before, after = load_2d_weights(source), load_2d_weights(target)
    assert before is not None
    assert after is not None
    assert after.scheme == "timm"
    expected, ours = inflate(before), inflate(after)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    with safe_open(str(target), "pt") as file:
        assert file.metadata() == {"size": "tiny", "source": "source.pth", "scheme": "timm", "sha256": before.sha256}
    assert target.stat().st_size < source.stat().st_size + 20_000


def test_a_refused_source_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    assert main(["weights", "convert", str(tmp_path / "broken.pth"), "-o", str(tmp_path / "out.safetensors")]) == 1
    assert main(["weights", "convert", str(tmp_path / "broken.pth"), "-o", str(tmp_path / "out.bin")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "broken.pth" in lines[0]
    assert ".safetensors" in lines[1]
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pth"]


def test_list_names_every_size(capsys: pytest.CaptureFixture) -> None:
    assert main(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    for size in ("tiny", "small", "base", "large"):
        assert f"timm/convnext_{size}.dinov3_lvd1689m" in printed
    assert "licence" in printed
