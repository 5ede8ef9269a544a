"""The demo's page, made of results that stand in for those of the commands."""

from __future__ import annotations

import dataclasses
import json

import pytest
from scipy import ndimage

from nnunet_neurino.demo.page import score_rows, write_page
from nnunet_neurino.demo.workflow import DemoSettings, Workflow
from nnunet_neurino.images import write_tiff
from nnunet_neurino.swc import write_swc
from nnunet_neurino.synth import generate, preset

LOG = """2026-01-01 10:00:00.0: Epoch 0
2026-01-01 10:00:01.0: train_loss 0.9
2026-01-01 10:00:01.0: val_loss 0.8
2026-01-01 10:00:01.0: Pseudo dice [np.float32(0.4)]
2026-01-01 10:00:01.0: Epoch time: 1.0 s
2026-01-01 10:00:02.0: Epoch 1
2026-01-01 10:00:03.0: train_loss 0.5
2026-01-01 10:00:03.0: val_loss 0.4
2026-01-01 10:00:03.0: Pseudo dice [np.float32(0.7)]
2026-01-01 10:00:03.0: Epoch time: 1.0 s
"""


@pytest.fixture
def finished(tmp_path) -> Workflow:
    """A workflow whose two held-out cases have results; the second has no tree scores."""
    workflow = Workflow(DemoSettings(tmp_path, shape=(16, 32, 32), spacing=(1.0, 0.5, 0.5)))
    settings = dataclasses.replace(preset("demo"), shape=(16, 32, 32))
    for seed, case in enumerate(workflow.settings.held_out):
        volume = generate(settings, seed)
        write_tiff(workflow.data / "images" / f"{case}.tif", volume.image)
        write_tiff(workflow.truth / "masks" / f"{case}.tif", volume.mask.astype("uint8"))
        predicted = ndimage.binary_erosion(volume.mask).astype("uint8")
        write_tiff(workflow.predictions / f"{case}.tif", predicted)
        workflow.traced.mkdir(exist_ok=True)
        write_swc(volume.tree, workflow.traced / f"{case}.swc")
    masks = {"f1": 0.75, "cldice": 0.5, "hd95": 2.0}
    trees = {"length_f1": 0.25, "nerl": 0.625, "esa": 1.5, "dsa": None, "pds": 0.125}
    first, second = workflow.settings.held_out
    for what, scores in (("masks", masks), ("trees", trees)):
        folder = workflow.scores / what
        folder.mkdir(parents=True)
        cases = {first: scores, second: scores} if what == "masks" else {first: scores}
        (folder / "scores.json").write_text(json.dumps({**scores, "cases": cases}))
    fold = workflow.model / "fold_0"
    fold.mkdir(parents=True)
    (fold / "training_log_2026_1_1_10_00_00.txt").write_text(LOG)
    return workflow


def test_score_table_has_every_case_and_marks_what_is_undefined(finished):
    heading, first, second, mean = score_rows(finished)
    assert heading[:2] == ["case", "F1 (mask)"]
    assert first == ["case_006", "0.750", "0.500", "2.000", "0.250", "0.625", "1.500", "-", "0.125"]
    assert second[1:] == ["0.750", "0.500", "2.000", "-", "-", "-", "-", "-"]
    assert mean[0] == "mean"


def test_page_is_self_contained_and_shows_pictures_scores_and_commands(finished):
    page = write_page(finished, {"generate": 4.2, "train": 60.4})
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 3  # two cases and the curve
    assert "0.750" in text
    assert "nnUNetv2_train 1 3d_fullres 0 -tr nnUNetTrainerNeurINO_demo -device cpu" in text
    assert 'src="http' not in text
    assert (finished.settings.output / "overview.png").read_bytes().startswith(b"\x89PNG")
