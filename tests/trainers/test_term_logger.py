"""The log keeps loss terms in step with nnU-Net's own values, over old and other checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from nnunetv2.training.logging.nnunet_logger import LocalLogger, MetaLogger

from nnunet_neurino.trainers.logger import TermLogger


def log_epoch(logger: LocalLogger, epoch: int, **terms: float) -> None:
    for key in ("mean_fg_dice", "ema_fg_dice", "train_losses", "val_losses", "lrs"):
        logger.log(key, 0.5, epoch)
    logger.log("dice_per_class_or_region", [0.5], epoch)
    logger.log("epoch_start_timestamps", float(epoch), epoch)
    logger.log("epoch_end_timestamps", epoch + 0.9, epoch)
    for name, value in terms.items():
        logger.log(f"loss_term/{name}", value, epoch)


def test_terms_of_an_old_checkpoint_are_unknown_for_the_past(tmp_path: Path) -> None:
    old = LocalLogger()
    log_epoch(old, 0)
    log_epoch(old, 1)
    logger = TermLogger(("node",))
    logger.load_checkpoint(old.get_checkpoint())
    log_epoch(logger, 2, node=0.25)
    values = logger.get_value("loss_term/node", None)
    assert values[2] == 0.25
    assert all(math.isnan(value) for value in values[:2])
    logger.plot_progress_png(str(tmp_path))
    assert (tmp_path / "progress.png").is_file()


def test_terms_that_are_gone_are_kept_and_padded(tmp_path: Path) -> None:
    before = TermLogger(("node", "edge"))
    log_epoch(before, 0, node=1.0, edge=2.0)
    logger = TermLogger(("node",))
    logger.load_checkpoint(before.get_checkpoint())
    log_epoch(logger, 1, node=0.5)
    logger.pad_terms(2)
    assert logger.get_value("loss_term/edge", 0) == 2.0
    assert {len(values) for values in logger.get_checkpoint().values()} == {2}
    logger.plot_progress_png(str(tmp_path))


def test_terms_are_drawn(tmp_path: Path) -> None:
    from matplotlib.image import imread

    for name, terms in (("without", {}), ("with", {"node": 1.0})):
        logger = TermLogger(terms)
        log_epoch(logger, 0, **terms)
        log_epoch(logger, 1, **terms)
        (tmp_path / name).mkdir()
        logger.plot_progress_png(str(tmp_path / name))
    plain, drawn = (imread(tmp_path / name / "progress.png") for name in ("without", "with"))
    assert drawn.shape[0] > plain.shape[0], "a panel more"
    assert np.unique(plain.reshape(-1, plain.shape[-1]), axis=0).shape[0] > 10


def test_nnunets_meta_logger_takes_it(tmp_path: Path) -> None:
    meta = MetaLogger(str(tmp_path), False)
    meta.local_logger = TermLogger(("node",))
    meta.log("loss_term/node", 0.5, 0)
    assert meta.get_value("loss_term/node", -1) == 0.5
