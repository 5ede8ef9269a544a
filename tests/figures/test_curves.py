"""Training curves from logs in the words of nnU-Net 2.8, resumed trainings included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures import read_training_log, training_figure

STAMP = "2026-11-21 00:10:0{}.123456:"


def epoch_lines(epoch: int, loss: float, finished: bool = True, terms: str = "") -> str:
    lines = ["", f"Epoch {epoch} ", f"Current learning rate: {0.01 / (epoch + 1)} "]
    if finished:
        lines += [
            f"train_loss {loss} ",
            f"val_loss {loss + 0.1:.4f} ",
            "Pseudo dice [np.float32(0.5), np.float32(0.7)] ",
            f"Epoch time: {10.5 + epoch} s ",
        ]
        lines += [f"loss terms: {terms} "] if terms else []
    return "".join(f"{STAMP.format(n % 10)} {line}\n" for n, line in enumerate(lines))


def test_log_is_read(tmp_path: Path) -> None:
    text = "Epoch numbers in the text before: Epoch 99 is not one.\n" + "".join(
        epoch_lines(epoch, loss) for epoch, loss in enumerate((-0.1, -0.2, 1e-05))
    )
    (tmp_path / "training_log_2026_11_21_00_10_00.txt").write_text(text)
    log = read_training_log(tmp_path)
    assert log.epochs.tolist() == [0, 1, 2]
    assert log.train_loss == pytest.approx([-0.1, -0.2, 1e-05])
    assert log.val_loss == pytest.approx([0.0, -0.1, 0.1], abs=1e-4)
    assert log.pseudo_dice == pytest.approx([0.6] * 3)
    assert log.terms == {}


def test_resumed_training_repeats_no_epoch_and_dates_sort_as_numbers(tmp_path: Path) -> None:
    first = epoch_lines(0, -0.1) + epoch_lines(1, -0.2) + epoch_lines(2, 0, finished=False)
    (tmp_path / "training_log_2026_9_30_23_59_59.txt").write_text(first)
    second = epoch_lines(1, -0.25) + epoch_lines(2, -0.3) + epoch_lines(3, 0, finished=False)
    (tmp_path / "training_log_2026_10_1_00_00_01.txt").write_text(second)
    log = read_training_log(tmp_path)
    assert log.epochs.tolist() == [0, 1, 2]
    assert log.train_loss == pytest.approx([-0.1, -0.25, -0.3])


def test_loss_terms_and_not_a_number(tmp_path: Path) -> None:
    text = epoch_lines(0, -0.1, terms="tasl 1.2500, path nan") + epoch_lines(
        1, float("nan"), terms="tasl -0.5000, path 0.1000"
    )
    (tmp_path / "training_log_2026_11_21_00_10_00.txt").write_text(text)
    log = read_training_log(tmp_path)
    assert set(log.terms) == {"tasl", "path"}
    assert log.terms["tasl"] == pytest.approx([1.25, -0.5])
    assert log.terms["path"] == pytest.approx([np.nan, 0.1], nan_ok=True)
    assert np.isnan(log.train_loss[1])
    figure = training_figure(log)
    assert len(figure.axes) == 3
    assert {line.get_label() for line in figure.axes[2].lines} == {"tasl", "path"}


def test_runs_side_by_side(tmp_path: Path, pixels) -> None:
    logs = {}
    for name in ("NeurINO", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training_log_2026_11_21_00_10_00.txt").write_text(
            epoch_lines(0, -0.1) + epoch_lines(1, -0.2)
        )
        logs[name] = read_training_log(tmp_path / name)
    figure = training_figure(logs)
    colours = {line.get_color() for line in figure.axes[0].lines}
    assert len(colours) == 2
    assert {line.get_linestyle() for line in figure.axes[0].lines} == {"-", "--"}
    pixels(figure)
    assert_legends_hide_nothing(figure)
    one = training_figure(logs["plain"])
    pixels(one)
    assert_legends_hide_nothing(one)


def assert_legends_hide_nothing(figure) -> None:
    for axes in figure.axes:
        box = axes.get_legend().get_window_extent()
        assert not any(box.overlaps(other.get_window_extent()) for other in figure.axes)
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


def test_no_log_and_no_finished_epoch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NeurinoError, match="no training_log"):
        read_training_log(tmp_path)
    fold = tmp_path / "fold_0"
    fold.mkdir()
    (fold / "training_log_2026_11_21_00_10_00.txt").write_text(epoch_lines(0, 0, finished=False))
    with pytest.raises(NeurinoError, match=r"did you mean .*fold_0"):
        read_training_log(tmp_path)
    with pytest.raises(NeurinoError, match="no finished epoch"):
        read_training_log(fold)
