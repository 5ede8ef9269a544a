"""Files of 2D weights, good ones in every format and broken ones of every kind."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def as_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Meta's files name it, with the final norm stored twice."""
    result = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "stem":
            new = f"downsample_layers.0.{parts[1]}.{parts[2]}"
        elif parts[0] == "stages" and parts[2] == "downsample":
            new = f"downsample_layers.{parts[1]}.{parts[3]}.{parts[4]}"
        elif parts[0] == "stages":
            rest = ".".join(parts[4:]).replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
            new = f"stages.{parts[1]}.{parts[3]}.{rest}"
        else:
            new = f"norm.{parts[-1]}"
            result[f"norms.3.{parts[-1]}"] = tensor.clone()
        result[new] = tensor
    return result


def as_transformers(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """As the transformers library names it (5.x: with the prefix `model.`)."""
    result = {}
    for name, tensor in as_original(state).items():
        if name.startswith("norms."):
            continue
        parts = name.split(".")
        if parts[0] == "downsample_layers":
            new = f"stages.{parts[1]}.downsample_layers.{parts[2]}.{parts[3]}"
        elif parts[0] == "stages":
            rest = ".".join(parts[3:]).replace("norm", "layer_norm")
            rest = rest.replace("dwconv", "depthwise_conv").replace("pwconv", "pointwise_conv")
            new = f"stages.{parts[1]}.layers.{parts[2]}.{rest}"
        else:
            new = f"layer_norm.{parts[-1]}"
        result[prefix + new] = tensor
    return result


def as_converted_by_version_0_1(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As ``neurino weights convert`` named them when our networks had names of their own."""
    replaced = {"stem.0": "stem.conv", "stem.1": "stem.norm", "downsample.0": "downsample.norm", "conv_dw": "depthwise",
                "downsample.1": "downsample.conv", "mlp.fc1": "expand", "mlp.fc2": "project"}  # fmt: skip
    result = {}
    for name, tensor in state.items():
        for new, old in replaced.items():
            name = name.replace(new, old)
        if not name.startswith("head."):
            result[name] = tensor
    return result


def written(kind: str, state: dict[str, Tensor], folder: Path) -> Path:
    """A source of the given kind."""
    if kind == "timm file":
        save_file(state, folder / "any_name.safetensors")
        return folder / "any_name.safetensors"
    if kind == "timm file, misnamed":
        save_file(state, folder / "weights.pth")
        return folder / "weights.pth"
    if kind == "timm folder":
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text('{"architecture": "convnext_tiny"}')
    elif kind == "timm folder, older":
        torch.save(state, folder / "pytorch_model.bin")
    elif kind == "transformers 4 folder":
        save_file(as_transformers(state), folder / "model.safetensors")
    elif kind == "transformers 5 folder":
        save_file(as_transformers(state, "model."), folder / "model.safetensors")
    elif kind == "original":
        torch.save(as_original(state), folder / "dinov3_convnext_tiny.pth")
        return folder / "dinov3_convnext_tiny.pth"
    elif kind == "original, old format":
        torch.save(as_original(state), folder / "old.pth", _use_new_zipfile_serialization=False)
        return folder / "old.pth"
    elif kind == "converted by version 0.1":
        save_file(as_converted_by_version_0_1(state), folder / "own.safetensors")
        return folder / "own.safetensors"
    elif kind == "training checkpoint":
        wrapped = {f"module.backbone.{name}": tensor for name, tensor in as_original(state).items()}
        torch.save({"epoch": 3, "model": wrapped}, folder / "last.pth")
        return folder / "last.pth"
    return folder


KINDS = {
    "timm file": "timm",
    "timm file, misnamed": "timm",
    "timm folder": "timm",
    "timm folder, older": "timm",
    "transformers 4 folder": "transformers",
    "transformers 5 folder": "transformers",
    "original": "original",
    "original, old format": "original",
    "training checkpoint": "original",
    "converted by version 0.1": "nnunet_neurino",
}


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.target, "executed"))


def broken(kind: str, state: dict[str, Tensor], folder: Path) -> Path:
    """A file that must be refused."""
    path = folder / ("weights.safetensors" if "safetensors" in kind else "weights.pth")
    if kind.startswith("cut"):
        save_file(state, path) if "safetensors" in kind else torch.save(
            as_original(state), path, _use_new_zipfile_serialization="old" not in kind
        )
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if "empty" not in kind else b"")
    elif kind == "bomb":
        torch.save({"model": as_original(state), "args": Bomb(folder / "executed")}, path)
    elif kind == "bomb, old format":
        path.write_bytes(pickle.dumps({"model": Bomb(folder / "executed")}))
    elif kind == "zip bomb":
        torch.save(as_original(state), folder / "plain.pth")
        with zipfile.ZipFile(folder / "plain.pth") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in plain.infolist():
                packed.writestr(entry.filename, plain.read(entry))
    elif kind == "stretched tensor":
        first = next(iter(state))
        torch.save({**state, first: torch.zeros(1).expand(2**20, 2**20, 3, 1)}, path)
    elif kind == "missing weight":
        del state["stages.2.blocks.1.norm.weight"]
        torch.save(state, path)
    elif kind == "missing stage":
        torch.save({name: t for name, t in state.items() if not name.startswith("stages.3")}, path)
    elif kind == "wrong shape":
        torch.save({**state, "stages.1.blocks.0.conv_dw.weight": torch.zeros(6, 1, 5, 5)}, path)
    elif kind == "foreign weight":
        torch.save({**state, "stages.1.blocks.0.mlp.grn.weight": torch.zeros(24)}, path)
    elif kind == "wrong size":
        torch.save({name: torch.cat([t, t]) if t.ndim == 1 else t for name, t in state.items()}, path)
    elif kind == "not a number":
        state["stem.0.weight"][0, 0, 0, 0] = float("nan")
        torch.save(state, path)
    elif kind == "integers":
        torch.save({name: tensor.to(torch.int8) for name, tensor in state.items()}, path)
    elif kind == "two encoders":
        torch.save({f"{who}.{name}": t for who in ("teacher", "student") for name, t in state.items()}, path)
    elif kind == "a transformer":
        torch.save({"blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, path)
    elif kind == "a list":
        torch.save([torch.zeros(1)], path)
    elif kind == "LFS placeholder":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif kind == "text":
        path.write_text("<html>401 Unauthorized</html>")
    return path
