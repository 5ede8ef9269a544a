"""The page in which the demo ends: pictures, scores, the curve, and the commands that made them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from nnunet_neurino.demo.workflow import Workflow
from nnunet_neurino.figures import CaseView, Page, load_case, projection_figure, read_training_log, training_figure
from nnunet_neurino.files import atomic_path

SCORES = {
    "masks": {"f1": "F1 (mask)", "cldice": "clDice", "hd95": "HD95"},
    "trees": {"length_f1": "length F1 (tree)", "nerl": "run length", "esa": "ESA", "dsa": "DSA", "pds": "PDS"},
}


def score_rows(workflow: Workflow) -> list[list[str]]:
    """Heading, a row a held-out case, and the means; a dash where a score is undefined."""
    contents = {what: workflow.read_scores(what) for what in SCORES}
    rows = [["case", *(title for scores in SCORES.values() for title in scores.values())]]
    for case in workflow.settings.held_out:
        rows.append([case, *_cells({what: contents[what]["cases"].get(case, {}) for what in SCORES})])
    rows.append(["mean", *_cells(contents)])
    return rows


def write_page(workflow: Workflow, seconds: Mapping[str, float]) -> Path:
    """Write ``report.html`` and ``overview.png`` into the output folder and return the page's path."""
    settings = workflow.settings
    page = Page("A neuron, found and traced")
    size = " x ".join(map(str, settings.shape))
    page.text(
        f"{settings.trainer}, a very small NeurINO, was trained briefly on {settings.training_cases} generated volumes "
        f"of {size} voxels (z, y, x). Here are the {settings.test_cases} volumes that it never saw: the raw image, the "
        "outlines of the true neuron and of the predicted mask, and the tree traced from the prediction. Boxes mark "
        "where the predicted and the true skeleton disagree."
    )
    page.heading("Held-out volumes")
    for index, case in enumerate(settings.held_out):
        figure = projection_figure(_view(workflow, case), title="")
        if index == 0:
            with atomic_path(settings.output / "overview.png") as unfinished:
                figure.savefig(unfinished, format="png")
        page.figure(figure, f"{case}: maximum projections in three directions, to scale.")
    page.heading("Scores")
    page.table(score_rows(workflow))
    page.text(
        "Distances (HD95, ESA, DSA) are in voxels, PDS is the share of the cable that is more than two voxels off. "
        "F1, clDice, length F1 and run length (the cable of one neuron before the first mistake, as a share of the "
        "greatest possible one) lie between 0 and 1, higher is better; for the others lower is better."
    )
    page.heading("Training")
    page.figure(
        training_figure(read_training_log(workflow.model / "fold_0")),
        "Losses and pseudo Dice by epoch, from nnU-Net's log.",
    )
    page.heading("The commands")
    page.text("This is all that was done; with your own stacks and tracings it is the same.")
    page.code(_script(workflow))
    rows = [{"step": name, "seconds": round(value)} for name, value in seconds.items()]
    page.table(rows, "Time of each step in this run (0: reused from an earlier one)")
    return page.write(settings.output / "report.html")


def _view(workflow: Workflow, case: str) -> CaseView:
    files = {
        "image": workflow.data / "images" / f"{case}.tif",
        "truth": workflow.truth / "masks" / f"{case}.tif",
        "prediction": workflow.predictions / f"{case}.tif",
        "tree": workflow.traced / f"{case}.swc",
    }
    return load_case(case, files, workflow.settings.spacing)


def _cells(contents: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    values = [contents[what].get(name) for what, names in SCORES.items() for name in names]
    return ["-" if value is None else f"{value:.3f}" for value in values]


def _script(workflow: Workflow) -> str:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in workflow.environment.items()]
    for commands in workflow.commands().values():
        lines += [shlex.join(command) for command in commands]
    return "\n".join(lines)
