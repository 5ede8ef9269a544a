"""nnU-Net finds trainers: ours with nothing exported, a user's own beside them, its own as ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from e2e_workplace import Workplace

pytestmark = pytest.mark.xdist_group("end_to_end")

PROGRAM = """
import pickle
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
ours = find("nnUNetTrainerNeurINO_S_100epochs")
print("ours", ours.__module__, ours.__name__, find("nnUNetTrainerNeurINO_S_100epochs") is ours)
print("pickled", pickle.loads(pickle.dumps(ours)) is ours)
for name in ("nnUNetTrainer", "nnUNetTrainer_5epochs"):
    print("built in", find(name).__module__, find(name).__name__)
for name in ("nnUNetTrainerNeurINO_nonsense", "nnUNetTrainerOfNobody"):
    try:
        find(name)
    except RuntimeError as error:
        print("refused", str(error).split(" in nnunetv2")[0])
"""
USERS = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
class nnUNetTrainerOfAUser(nnUNetTrainer):
    pass
"""


def run(program: str, environment: dict[str, str], folder: Path) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()


def test_ours_and_nnunets_with_nothing_exported(workplace: Workplace, tmp_path: Path) -> None:
    assert "nnUNet_extTrainer" not in workplace.environment
    lines = run(PROGRAM, workplace.environment, tmp_path)
    assert "ours nnunet_neurino.trainers nnUNetTrainerNeurINO_S_100epochs True" in lines
    assert "pickled True" in lines
    assert "built in nnunetv2.training.nnUNetTrainer.nnUNetTrainer nnUNetTrainer" in lines
    assert any(line.startswith("built in nnunetv2.") and line.endswith(" nnUNetTrainer_5epochs") for line in lines)
    assert "refused Could not find requested nnunet trainer nnUNetTrainerNeurINO_nonsense" in lines
    assert "refused Could not find requested nnunet trainer nnUNetTrainerOfNobody" in lines


def test_a_users_folder_beside_ours(workplace: Workplace, tmp_path: Path) -> None:
    theirs = tmp_path / "trainers"
    theirs.mkdir()
    (theirs / "of_a_user.py").write_text(USERS)
    program = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "import os\n"
        "print('first', os.environ['nnUNet_extTrainer'].split(os.pathsep)[0])\n"
        "print('theirs', find('nnUNetTrainerOfAUser').__module__)\n"
        "print('ours', find('nnUNetTrainerNeurINO').__module__)\n"
    )
    lines = run(program, {**workplace.environment, "nnUNet_extTrainer": str(theirs)}, tmp_path)
    assert f"first {theirs}" in lines
    assert "theirs of_a_user" in lines
    assert "ours nnunet_neurino.trainers" in lines
    assert os.environ.get("nnUNet_extTrainer", "").split(os.pathsep)[0] != str(theirs)
