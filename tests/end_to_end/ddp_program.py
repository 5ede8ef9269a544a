"""Train one epoch with each of some trainers in two gloo processes on the CPU; what each process saw goes to JSON.

nnU-Net's DDP is for CUDA only; the two lines that say so are replaced here, in the test, not in the package.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_module
from torch.nn.parallel import DistributedDataParallel

from nnunet_neurino.trainers.launch import Training, make_trainer


def on_cpu(network: torch.nn.Module, device_ids: list[int]) -> DistributedDataParallel:
    return DistributedDataParallel(network)


def worker(rank: int, world: int, folder: str, trainer_names: list[str]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    nnunet_module.DDP = on_cpu
    for name in trainer_names:
        Path(folder, f"{name}.{rank}.json").write_text(json.dumps(trained(name)))
    dist.destroy_process_group()


def trained(trainer_name: str) -> dict[str, Any]:
    settings = {"epochs": 1, "iterations": 3, "val_iterations": 1, "batch_size": 3}
    trainer = make_trainer(Training("901", "3d_fullres", 1, trainer_name, settings=settings, device="cpu"))
    losses: list[float] = []
    terms: dict[str, list[float]] = {}
    sizes: set[int] = set()
    original = trainer.train_step

    def observed(batch: dict[str, Any]) -> dict[str, Any]:
        target = batch["target"]
        sizes.add(len(target[0] if isinstance(target, list) else target))
        result = original(batch)
        losses.append(float(result["loss"]))
        for key, value in result.items():
            if key.startswith("loss_term/"):
                terms.setdefault(key, []).append(value)
        return result

    trainer.train_step = observed
    trainer.run_training()
    trainer.perform_actual_validation()
    weights = torch.cat([p.detach().flatten() for p in trainer.bare_network.parameters()])
    return {
        "losses": losses,
        "terms": terms,
        "batch_sizes": sorted(sizes),
        "weights_sum": float(weights.double().sum()),
        "weights_norm": float(weights.double().norm()),
        "logged_loss": float(np.asarray(trainer.logger.get_value("train_losses", 0))),
        "logged_terms": {key: float(trainer.logger.get_value(key, 0)) for key in terms},
    }


if __name__ == "__main__":
    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ["MASTER_PORT"], target, *names = sys.argv[1:]
    torch.multiprocessing.spawn(worker, args=(2, target, names), nprocs=2)
