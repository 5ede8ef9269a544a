"""Turn a model trained with the released NeurINO code into a model folder that nnUNetv2_predict runs.

The released code is a fork of nnU-Net v1: its model folder (.../3d_fullres/TaskXXX_NAME/TRAINER__PLANS) holds plans.pkl
and fold_0/model_best.model with model_best.model.pkl. The pickles are read without executing anything in them. The
result gives the same logits for the same voxels; nnU-Net v2 normalises before it resamples where v1 did so afterwards,
which only matters for images that need resampling.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_neurino.errors import NeurinoError

if TYPE_CHECKING:
    from nnunet_neurino.transfer.published import PublishedNetwork
    from nnunet_neurino.transfer.v1_folder import ImportedNetwork, V1Model

EXAMPLE = "  neurino import-checkpoint RESULTS_FOLDER/nnUNet/3d_fullres/Task501_Neurons/TRAINER__PLANS"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("folder", metavar="V1_FOLDER", type=Path, help="model folder of nnU-Net v1, with plans.pkl")
    text = "name of nnU-Net v2's data set, such as Dataset501_Neurons (default: from the folder TaskXXX_NAME)"
    option("-d", "--dataset", metavar="NAME", help=text)
    text = "folder of the data set's results to write into (default: the data set in $nnUNet_results)"
    option("-o", "--output", metavar="DIR", type=Path, help=text)
    text = "model_best.model (default, what the released code predicts with) or model_final_checkpoint.model"
    option("--checkpoint", choices=("best", "final"), default="best", help=text)
    text = "of the images that you will predict (default: .nii.gz)"
    endings = (".nii.gz", ".nrrd", ".mha", ".tif", ".tiff")
    option("--file-ending", choices=endings, default=".nii.gz", help=text)
    option("--overwrite", action="store_true", help="replace a model folder that is already there")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from nnunet_neurino.files import write_json
    from nnunet_neurino.transfer.v1_folder import checked_alike, open_v1_folder, read_network, v2_dataset, v2_plans

    model = open_v1_folder(args.folder, args.checkpoint)
    name = args.dataset or _dataset_name(args.folder)
    if not re.fullmatch(r"Dataset\d{3}_[\w.-]+", name):
        raise NeurinoError(f"--dataset {name}: expected a name such as Dataset501_Neurons")
    results = args.output or _results_folder() / name
    with tqdm(model.folds.items(), desc="reading", unit="fold") as folds_to_read:
        networks = {fold: read_network(path) for fold, path in folds_to_read}
    network = checked_alike(networks, model)
    trainer = trainer_name(network)
    plans = v2_plans(model, network, name, args.file_ending)
    target = results / f"{trainer}__{plans['plans_name']}__{model.configuration}"
    # Without plans.json the folder is what an interrupted import has left.
    if (target / "plans.json").exists() and not args.overwrite:
        raise NeurinoError(f"{target}: already there; --overwrite replaces it")
    others = sorted(path.name for path in target.glob("fold_*") if path.name.removeprefix("fold_") not in networks)
    if others:
        raise NeurinoError(
            f"{target}: holds {', '.join(others)}, too, which this import does not replace, and all folds share one "
            "plans.json; move them away or give another --output"
        )
    _write_folds(target, model, networks, trainer)
    write_json(target / "dataset.json", v2_dataset(model, network, args.file_ending))
    # Last: nnU-Net takes a folder with plans.json for a complete model.
    write_json(target / "plans.json", plans)
    print(
        f"{target}: {model.trainer}, folds {', '.join(networks)}; NeurINO-{network.size.capitalize()}, "
        f"{network.stem_stride}x stem, GRN {'on' if network.grn else 'off'}, {network.in_channels} channels, "
        f"{network.num_classes} classes"
    )
    folds = " ".join(networks)
    print(f"nnUNetv2_predict -i IMAGES -o OUTPUT -d {name} -c {model.configuration} -tr {trainer} -f {folds}")
    return 0


def trainer_name(network: PublishedNetwork) -> str:
    """The trainer of ours whose network this is."""
    size = {"tiny": "", "small": "_S", "base": "_B", "large": "_L"}[network.size]
    stem = "_stem4" if network.stem_stride == 4 else ""
    return f"nnUNetTrainerNeurINO{size}_{'paper' if network.grn else 'released'}{stem}"


def _dataset_name(folder: Path) -> str:
    for part in reversed(folder.resolve().parts):
        if match := re.fullmatch(r"Task(\d{1,3})_([\w.-]+)", part):
            return f"Dataset{int(match[1]):03d}_{match[2]}"
    raise NeurinoError(
        f"{folder}: no folder TaskXXX_NAME in this path tells the data set; give --dataset DatasetXXX_NAME"
    )


def _results_folder() -> Path:
    folder = os.environ.get("nnUNet_results")
    if not folder:
        raise NeurinoError("nnUNet_results is not set: set it as for nnU-Net, or give --output")
    return Path(folder)


def _write_folds(target: Path, model: V1Model, networks: Mapping[str, ImportedNetwork], trainer: str) -> None:
    import torch

    from nnunet_neurino.files import atomic_path

    for fold, network in networks.items():
        checkpoint = {
            "network_weights": network.state,
            "init_args": {"configuration": model.configuration, "fold": int(fold) if fold.isdigit() else fold},
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": (0, 1, 2),
            "imported_from": {"trainer": model.trainer, "checkpoint": model.folds[fold].name},
        }
        with atomic_path(target / f"fold_{fold}" / "checkpoint_final.pth") as unfinished:
            torch.save(checkpoint, unfinished)
