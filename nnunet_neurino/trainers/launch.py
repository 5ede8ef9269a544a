"""Run a training as ``nnUNetv2_train`` does, with settings that travel in the plans."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nnunetv2.run import run_training as nnunet
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch.backends import cudnn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.old_names import with_current_names
from nnunet_neurino.trainers.datasets import dataset_name, load_dataset_json, load_plans, nnunet_folder
from nnunet_neurino.trainers.families.recipe import PLANS_KEY
from nnunet_neurino.trainers.optimisation import without_wrappers
from nnunet_neurino.trainers.trainer import Trainer
from nnunet_neurino.transfer.safe_pickle import read_torch_archive


@dataclass(frozen=True)
class Training:
    """The arguments of ``nnUNetv2_train``, and the settings that it has no arguments for."""

    dataset: str  # number or name
    configuration: str  # such as ``3d_fullres``
    fold: int | str  # 0 to 4, or ``all``
    trainer: str = "nnUNetTrainerNeurINO"  # name of the trainer class
    plans: str = "nnUNetPlans"  # name of the plans
    settings: dict[str, Any] = field(default_factory=dict)  # changed fields of the trainer's settings
    device: str = "cuda"  # ``cuda``, ``cpu`` or ``mps``
    gpus: int = 1  # number of GPUs
    resume: bool = False  # go on from the latest checkpoint
    validate: str = "after"  # ``"after"`` the training, ``"only"`` (no training) or ``"never"``
    best: bool = False  # validate with the best checkpoint instead of the final one
    probabilities: bool = False  # save the validation's probabilities (``--npz``)
    pretrained_model: Path | None = None  # nnU-Net checkpoint to start from


def refuse_unused_weights(training: Training, location: str) -> None:
    """Raise ``NeurinoError`` if the trainer would not look at the 2D weights that are named."""
    trainer = _trainer_class(training.trainer)
    if not issubclass(trainer, Trainer) or not trainer.defaults.replaced(training.settings).pretrained:
        raise NeurinoError(
            f"--weights {location}: {training.trainer} starts from scratch and would not read them; choose another "
            "trainer (docs/trainers.md), or give one of ours --set pretrained=true"
        )


def launch(training: Training) -> None:
    """Train (and validate) in this process, or in one process for each GPU."""
    _check(training)
    # nnunetv2.run.run_training sets these when it is a program; compiling with many threads can hang.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    if training.gpus > 1:
        os.environ.setdefault("MASTER_ADDR", "localhost")
        os.environ.setdefault("MASTER_PORT", str(nnunet.find_free_network_port()))
        torch.multiprocessing.spawn(_on_one_gpu, args=(training,), nprocs=training.gpus)
    else:
        _run(training)


def make_trainer(training: Training) -> Any:
    """An instance of the trainer whose plans carry the settings."""
    trainer_class = _trainer_class(training.trainer)
    name = dataset_name(training.dataset)
    plans = load_plans(name, training.plans)
    if training.settings:
        plans[PLANS_KEY] = {**plans.get(PLANS_KEY, {}), **training.settings}
    plans["continue_training"] = training.resume
    return trainer_class(
        plans, training.configuration, training.fold, load_dataset_json(name), torch.device(training.device)
    )


def _trainer_class(name: str) -> type[Any]:
    from nnunet_neurino.trainers import find

    try:
        return find(name) or recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        raise NeurinoError(f"no trainer is called {name}; see docs/trainers.md for the names") from None


def _check(training: Training) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        nnunet_folder(variable)
    name = dataset_name(training.dataset)
    configurations = load_plans(name, training.plans)["configurations"]
    if training.configuration not in configurations:
        raise NeurinoError(
            f"{name}, {training.plans}: no configuration {training.configuration}; there are "
            f"{', '.join(configurations)}"
        )
    trainer = _trainer_class(training.trainer)
    if issubclass(trainer, Trainer):
        trainer.defaults.replaced(training.settings)
    elif training.settings:
        raise NeurinoError(
            f"{training.trainer} takes no {', '.join(training.settings)} from the command line, only our own trainers "
            "do (docs/trainers.md)"
        )
    if training.device == "cuda" and torch.cuda.device_count() < training.gpus:
        raise NeurinoError(
            f"{training.gpus} GPU(s) asked for, PyTorch sees {torch.cuda.device_count()}; use --device cpu, or see "
            "`neurino doctor`"
        )
    if training.device == "mps" and not torch.backends.mps.is_available():
        raise NeurinoError("--device mps: PyTorch finds no Apple GPU here; use --device cpu")
    if training.gpus > 1 and training.device != "cuda":
        raise NeurinoError(f"--num-gpus {training.gpus} needs --device cuda, not {training.device}")


def _on_one_gpu(rank: int, training: Training) -> None:
    nnunet.setup_ddp(rank, training.gpus)
    torch.cuda.set_device(rank)
    _run(training)
    nnunet.cleanup_ddp()


def _run(training: Training) -> None:
    if training.device == "cuda":
        torch.set_num_threads(1)
        cudnn.benchmark = True
    trainer = make_trainer(training)
    weights = training.pretrained_model
    only = training.validate == "only"
    if only and not (Path(trainer.output_folder) / "checkpoint_final.pth").is_file():
        raise NeurinoError(f"{trainer.output_folder}: no checkpoint_final.pth; the training is not finished")
    if weights is None:
        nnunet.maybe_load_checkpoint(trainer, training.resume, only)
    else:
        _start_from(trainer, weights)
    if not only:
        trainer.run_training()
    if training.validate != "never":
        if training.best:
            trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_best.pth"))
        trainer.perform_actual_validation(training.probabilities)


def _start_from(trainer: Any, model: Path) -> None:
    """Put the weights of an nnU-Net checkpoint into a new trainer's network, all but the segmentation heads.

    nnU-Net's own function would execute what is in the file.
    """
    stored = with_current_names(read_torch_archive(model, "network_weights"))
    trainer.initialize()
    network = without_wrappers(trainer.network)
    own = network.state_dict()
    wanted = [name for name in own if ".seg_layers." not in name]
    different = [name for name in wanted if name not in stored or stored[name].shape != own[name].shape]
    if different:
        raise NeurinoError(
            f"{model}: not a checkpoint of this network: {len(different)} of {len(wanted)} tensors are missing or have "
            f"another shape, one is '{different[0]}'; give the trainer, --size and plans that it was made with"
        )
    network.load_state_dict(own | {name: stored[name] for name in wanted})
