"""Steps: reuse, restart after a change, after an interruption, after a loss."""

from __future__ import annotations

import pytest

from nnunet_neurino.demo.steps import Step, run_steps


@pytest.fixture
def pipeline(tmp_path):
    """Run a two-step pipeline and return the names of the steps that did work."""

    def run(first_settings=1, interrupt: str = "") -> list[str]:
        done: list[str] = []

        def work(name: str) -> None:
            if interrupt == name:
                (tmp_path / name).write_text("half")
                raise KeyboardInterrupt
            assert not (tmp_path / name).exists(), "the half-finished result is cleared first"
            (tmp_path / name).write_text("whole")
            done.append(name)

        steps = [
            Step("data", "make data", lambda: work("data"), first_settings, [tmp_path / "data"]),
            Step("train", "train", lambda: work("train"), None, [tmp_path / "train"]),
        ]
        run_steps(steps, tmp_path / "stamps")
        return done

    return run


def test_second_run_reuses_everything(pipeline):
    assert pipeline() == ["data", "train"]
    assert pipeline() == []


def test_changed_settings_redo_the_step_and_all_behind_it(pipeline):
    pipeline()
    assert pipeline(first_settings=2) == ["data", "train"]


def test_interrupted_step_is_done_again_and_earlier_ones_are_not(pipeline, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pipeline(interrupt="train")
    assert pipeline() == ["train"]
    assert (tmp_path / "train").read_text() == "whole"


def test_lost_result_is_made_again_with_all_behind_it(pipeline, tmp_path):
    pipeline()
    (tmp_path / "data").unlink()
    assert pipeline() == ["data", "train"]


def test_damaged_stamp_counts_as_none(pipeline, tmp_path):
    pipeline()
    (tmp_path / "stamps" / "train.json").write_text("{")
    assert pipeline() == ["train"]


def test_work_that_resumes_keeps_its_beginnings_unless_the_settings_changed(tmp_path):
    made = tmp_path / "model"

    def run(settings: int, interrupt: bool) -> str:
        def train() -> None:
            made.write_text((made.read_text() if made.exists() else "") + "epoch ")
            if interrupt:
                raise KeyboardInterrupt

        run_steps([Step("train", "train", train, settings, [made], resumes=True)], tmp_path / "stamps")
        return made.read_text()

    with pytest.raises(KeyboardInterrupt):
        run(1, interrupt=True)
    assert run(1, interrupt=False) == "epoch epoch "
    with pytest.raises(KeyboardInterrupt):
        run(2, interrupt=True)
    assert run(3, interrupt=False) == "epoch "
