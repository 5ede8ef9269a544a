"""What every documented trainer is: settings, adapted plans, start weights, first losses. To compare two versions.

For each trainer name in the docs' tables the program records all settings, what becomes of two plans (cubic and
anisotropic voxels: architecture, patch, batch, number of parameters), a hash of the weights that a training with a
fixed seed starts from, and the losses of its first five steps on fixed random batches, with random 2D weights where
the trainer reads any. Steps run on one CPU thread, on patches small enough for that.

Examples:
  python benchmarks/trainer_fingerprint.py new.json
  python benchmarks/trainer_fingerprint.py new.json --compare old.json
  python benchmarks/trainer_fingerprint.py some.json --only nnUNetTrainerNeurINO_paper nnUNetTrainerDINeuro
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import os
import pydoc
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

WORK = tempfile.TemporaryDirectory()
for _name in ("raw", "preprocessed", "results"):
    os.environ[f"nnUNet_{_name}"] = str(Path(WORK.name, _name))
_data = Path(WORK.name, "preprocessed", "Dataset001_Test", "nnUNetPlans_3d_fullres")
_data.mkdir(parents=True)
(_data / "case.b2nd").touch()  # by which nnU-Net knows the storage format
os.environ["HF_HOME"] = str(Path(WORK.name, "no_hugging_face"))

sys.path.append(str(Path(__file__).parents[1] / "tests" / "trainers"))

import timm  # noqa: E402 (nnU-Net reads its folders when it is imported)
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from nnunet_plans import DATASET_JSON, plans  # noqa: E402 (those of the tests)
from safetensors.torch import save_file  # noqa: E402

from nnunet_neurino import trainers  # noqa: E402
from nnunet_neurino.errors import NeurinoError  # noqa: E402

DOCS = Path(__file__).parents[1] / "docs"
COMBINED = (
    "nnUNetTrainerNeurINO_paper_stem4",
    "nnUNetTrainerNeurINO_S_released_average_noTASL_100epochs",
    "nnUNetTrainerMedNeXtTASL_5epochs",
    "nnUNetTrainerTASL_5epochs",
    "nnUNetTrainerDINeuro_B_paper_average_notube_TASL_EMA",
    "nnUNetTrainerDINOWindow_B_paper_single_last_TASL_2epochs",
)
STEPS = 5
PATCH = (16, 32, 32)
CONVNEXT = {size: f"convnext_{size}" for size in ("tiny", "small", "base", "large")}
VIT = {
    "small": "vit_small_patch16_224.dino",
    "base": "vit_base_patch16_224.dino",
    "small_v3": "vit_small_patch16_dinov3",
    "base_v3": "vit_base_patch16_dinov3",
}


PLANS = {
    "cubic": plans((128, 128, 128), (1.0, 1.0, 1.0), [[1, 1, 1], *[[2, 2, 2]] * 5]),
    "anisotropic": plans((20, 96, 96), (1.0, 0.3, 0.3), [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]),
}
SMALL = plans(PATCH, (1.0, 0.5, 0.5), [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]])


def documented() -> list[str]:
    """All trainer names in the docs' tables, and some combinations of words."""
    pages = (page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md")))
    names = [name for page in pages for name in re.findall(r"^\| `(nnUNetTrainer\w+)` \|", page, re.M)]
    return list(dict.fromkeys([*names, *COMBINED]))


def made(name: str, contents: dict[str, Any], settings: dict[str, Any] | None = None) -> Any:
    """A trainer of this name with changed settings."""
    contents = copy.deepcopy(contents) | {"continue_training": False}
    if settings:
        contents["neurino_settings"] = settings
    trainer_class: Any = trainers.find(name)
    with contextlib.redirect_stdout(io.StringIO()):
        return trainer_class(contents, "3d_fullres", 0, copy.deepcopy(DATASET_JSON), torch.device("cpu"))


def planned(name: str, contents: dict[str, Any]) -> dict[str, Any]:
    """What the trainer makes of plans."""
    try:
        configuration = made(name, contents).configuration_manager
    except NeurinoError as error:
        return {"refused": str(error)}
    kwargs = copy.deepcopy(configuration.network_arch_init_kwargs)
    network: Any = pydoc.locate(configuration.network_arch_class_name)
    for key in configuration.network_arch_init_kwargs_req_import:
        kwargs[key] = kwargs[key] and pydoc.locate(kwargs[key])
    with torch.device("meta"):
        parameters = sum(p.numel() for p in network(input_channels=1, num_classes=2, **kwargs).parameters())
    return {
        "network": configuration.network_arch_class_name,
        "arguments": configuration.network_arch_init_kwargs,
        "patch": list(configuration.patch_size),
        "batch": configuration.batch_size,
        "parameters": parameters,
    }


def stand_in_weights(size: str, table: dict[str, str]) -> Path:
    """Random 2D weights of a size, made once."""
    path = Path(WORK.name, f"{table[size]}.safetensors")
    if not path.exists():
        torch.manual_seed(1)
        save_file(timm.create_model(table[size], pretrained=False, num_classes=0).state_dict(), path)
    return path


def first_steps(name: str) -> dict[str, Any]:
    """A hash of the start weights, and the first losses."""
    try:
        settings = getattr(made(name, SMALL), "settings", None)
    except NeurinoError as error:
        return {"refused": str(error), "losses": []}
    changes: dict[str, Any] = {}
    os.environ["NNUNET_NEURINO_WEIGHTS"] = "none"
    if settings is not None:
        changes = {"batch_size": 2, "patch_size": list(PATCH)}
        table = CONVNEXT if "NeurINO" in name else VIT
        if getattr(settings, "pretrained", False) and settings.size in table:
            os.environ["NNUNET_NEURINO_WEIGHTS"] = str(stand_in_weights(settings.size, table))
        if "DINeuro" in name:
            changes["patch_size"] = [3, *((40, 40) if settings.magnify > 1 else (32, 32))]
        if "paper_stem4" in name:
            del changes["patch_size"]
        if "DINOWindow" in name:
            changes["window"] = [8, 16, 16]
    trainer = made(name, SMALL, changes)
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.initialize()
        weights = hashlib.sha256()
        for key, tensor in sorted(trainer.network.state_dict().items()):
            weights.update(f"{key} {tuple(tensor.shape)}".encode())
            weights.update(tensor.contiguous().numpy().tobytes())
        trainer.current_epoch = 3  # the topology-aware loss has come in
        trainer.on_train_epoch_start()
    losses = [float(trainer.train_step(batch(trainer, seed))["loss"]) for seed in range(STEPS)]
    record = {"patch": list(trainer.configuration_manager.patch_size), "losses": losses}
    return {**record, "weights": weights.hexdigest()[:16]}


def batch(trainer: Any, seed: int) -> dict[str, Any]:
    """A batch as nnU-Net's loader gives it."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 1, *trainer.configuration_manager.patch_size, generator=generator)
    image = F.avg_pool3d(image, 3, 1, 1) * 4
    label = (image > 1).float()
    if not trainer.enable_deep_supervision:
        return {"data": image, "target": label.short()}
    sizes = [
        [round(n * s) for n, s in zip(image.shape[2:], scale, strict=True)]
        for scale in trainer._get_deep_supervision_scales()
    ]
    return {"data": image, "target": [F.interpolate(label, size).short() for size in sizes]}


def fingerprint(name: str) -> dict[str, Any]:
    """Everything about one trainer."""
    trainer = made(name, PLANS["cubic"])
    settings = getattr(trainer, "settings", None)
    record: dict[str, Any] = {"settings": settings.as_json() if settings else None, "epochs": trainer.num_epochs}
    record |= {kind: planned(name, contents) for kind, contents in PLANS.items()}
    return record | {"start": first_steps(name)}


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """One line for each value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(key for key in new if key not in old)]:
            lines += differences(old.get(key, "(none)"), new.get(key, "(none)"), f"{path}/{key}")
        return lines
    return [] if old == new else [f"{path[1:]}: {old} -> {new}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="JSON to write; trainers that it already holds are not run again")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some trainers instead of all")
    parser.add_argument("--compare", type=Path, metavar="JSON", help="list what differs from this one")
    args = parser.parse_args()
    results = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
    torch.set_num_threads(1)
    for name in args.only or documented():
        if name not in results:
            results[name] = json.loads(json.dumps(fingerprint(name)))
            args.output.write_text(json.dumps(results, indent=1), encoding="utf-8")
            print(name, *(f"{loss:.5f}" for loss in results[name]["start"]["losses"]), flush=True)
    if args.compare:
        old = json.loads(args.compare.read_text(encoding="utf-8"))
        lines = differences({name: old.get(name, "(none)") for name in results}, results)
        print("\n".join(lines) or "no differences")


if __name__ == "__main__":
    main()
