"""Train as nnUNetv2_train does, with epochs, learning rate, batch size and every other setting from the command line.

The settings are kept in the model folder (plans.json, and for reading neurino_settings.json in the fold's folder), so
nnUNetv2_predict, nnUNetv2_train --c and --val work on the result as on any other. A resumed run (--c) goes on with the
settings it was started with; settings given again count from there on, but size, stem, norm and patch cannot change.

2D weights: --weights, else the variable NNUNET_NEURINO_WEIGHTS, else DINOv3 weights in the Hugging Face cache, else
training starts from scratch and says so.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from nnunet_neurino.cli.options import ZYX
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families import families, family_of

EXAMPLE = "  neurino train 7 3d_fullres 0 --epochs 100 --lr 5e-4 --batch-size 4"

TRAINER = "nnUNetTrainerNeurINO"
_DEFAULTS = families()[TRAINER].settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("dataset", help="number or name of the data set: 7 or Dataset007_Mouse")
    option("configuration", help="3d_fullres, 3d_lowres or 3d_cascade_fullres")
    option("fold", help="0 to 4, or all")
    option("-tr", "--trainer", metavar="NAME", default=TRAINER, help="(default: %(default)s)")
    option("-p", "--plans", metavar="NAME", default="nnUNetPlans", help="(default: %(default)s)")
    option("--device", choices=("cuda", "cpu", "mps"), help="(default: cuda if there is a GPU, else cpu)")
    option("--num-gpus", metavar="N", type=int, default=1, help="GPUs to train on (default: 1)")
    option("--c", "--continue", action="store_true", dest="resume", help="go on from the last checkpoint")
    option("--val", action="store_true", help="only validate a finished training")
    option("--val-best", action="store_true", help="validate with the best checkpoint, not the final one")
    option("--no-val", action="store_true", help="do not predict the validation cases after training")
    option("--npz", action="store_true", help="keep the validation's probabilities, for ensembling")
    text = "start from a checkpoint of nnU-Net with this network"
    option("--pretrained-model", metavar="FILE", type=Path, help=text)
    option("--weights", metavar="SOURCE", help="2D weights: file, folder, timm name, or none")

    group = parser.add_argument_group(f"settings (the defaults shown are those of {TRAINER})")
    option = group.add_argument
    option("--epochs", metavar="N", type=int, help=f"(default: {_DEFAULTS.epochs})")
    option("--iterations", metavar="N", type=int, help=f"steps an epoch (default: {_DEFAULTS.iterations})")
    text = f"validation batches an epoch (default: {_DEFAULTS.val_iterations})"
    option("--val-iterations", metavar="N", type=int, help=text)
    option("--lr", metavar="RATE", type=float, help=f"peak learning rate (default: {_DEFAULTS.lr:g})")
    option("--batch-size", metavar="N", type=int, help="patches a step (default: by the plans and --memory)")
    option("--patch-size", type=int, **ZYX, help="voxels (default: by the plans and --memory)")
    option("--memory", metavar="GIB", type=float, help=f"GPU memory (default: {_DEFAULTS.memory:g})")
    text = "encoder: tiny (default), small, base, large, or atto for trials"
    option("--size", metavar="NAME", help=f"{text}; other networks have other sizes, see docs/trainers.md")
    text = "any other setting of the trainer, see docs/trainers.md; may be repeated"
    option("--set", metavar="NAME=VALUE", action="append", default=[], help=text)


def run(args: argparse.Namespace) -> int:
    settings = _settings(args)
    family = family_of(args.trainer)
    if family is not None:  # a trainer of somebody else's is asked when it is loaded
        family.check(settings)
    if args.weights:
        os.environ["NNUNET_NEURINO_WEIGHTS"] = args.weights
    if args.fold != "all" and not args.fold.isdigit():
        raise NeurinoError(f"fold {args.fold!r}: give a number from 0 up, or all")
    if args.resume and args.val:
        raise NeurinoError("--c resumes training and --val only validates: give one of them")
    if args.pretrained_model and (args.resume or args.val):
        raise NeurinoError("--pretrained-model is what a new training starts from: give it without --c and --val")
    if args.num_gpus < 1:
        raise NeurinoError(f"--num-gpus {args.num_gpus}: give 1 or more (--device cpu trains without a GPU)")
    if args.pretrained_model and not args.pretrained_model.is_file():
        raise NeurinoError(f"{args.pretrained_model}: no such file")
    import torch

    from nnunet_neurino.trainers.launch import Training, launch, refuse_unused_weights

    training = Training(
        dataset=args.dataset,
        configuration=args.configuration,
        fold=args.fold if args.fold == "all" else int(args.fold),
        trainer=args.trainer,
        plans=args.plans,
        settings=settings,
        device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        gpus=args.num_gpus,
        resume=args.resume,
        validate="only" if args.val else "never" if args.no_val else "after",
        best=args.val_best,
        probabilities=args.npz,
        pretrained_model=args.pretrained_model,
    )
    if args.weights and args.weights.lower() != "none":
        refuse_unused_weights(training, args.weights)
    launch(training)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings given on the command line, JSON-able."""
    names = ("epochs", "iterations", "val_iterations", "lr", "batch_size", "patch_size", "memory", "size")
    settings = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    for assignment in args.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise NeurinoError(f"--set {assignment}: write NAME=VALUE")
        try:
            value = json.loads(text)
        except ValueError:
            value = {"none": None, "true": True, "false": False}.get(text.lower(), text)
        settings[name.replace("-", "_")] = value
    return settings
