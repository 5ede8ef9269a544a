"""The start-up line in site-packages: what it registers, what it costs, and that it goes when we go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from nnunet_neurino import _startup

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ext_trainer(monkeypatch):
    """Read nnUNet_extTrainer after register() ran on the given start value."""

    def run(before: str | None) -> list[str]:
        monkeypatch.delenv(_startup.OPT_OUT, raising=False)
        if before is None:
            monkeypatch.delenv("nnUNet_extTrainer", raising=False)
        else:
            monkeypatch.setenv("nnUNet_extTrainer", before)
        _startup.register()
        _startup.register()
        return os.environ.get("nnUNet_extTrainer", "").split(os.pathsep)

    return run


def test_registers_once_and_behind_the_users_folders(ext_trainer):
    assert ext_trainer(None) == [_startup.PLUGIN_FOLDER]
    assert ext_trainer(os.pathsep.join(["/mine", "", "/his"])) == ["/mine", "/his", _startup.PLUGIN_FOLDER]
    assert ext_trainer(_startup.PLUGIN_FOLDER) == [_startup.PLUGIN_FOLDER]


def test_opt_out(monkeypatch):
    monkeypatch.setenv(_startup.OPT_OUT, "1")
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    _startup.register()
    assert "nnUNet_extTrainer" not in os.environ


def test_import_of_the_package_is_light():
    # site imports os in every Python anyway.
    code = "import sys, os; before = set(sys.modules); import nnunet_neurino; print(*set(sys.modules) - before)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # -S keeps site (and the start-up line itself) out, so that everything the import costs is counted.
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert sorted(loaded) == ["nnunet_neurino", "nnunet_neurino._startup"]


def test_plugin_folder_holds_nothing_but_the_shim():
    modules = {path.name for path in Path(_startup.PLUGIN_FOLDER).glob("*.py")}
    assert modules == {"__init__.py", "neurino_trainers.py"}


def test_shim_is_silent_where_the_package_is_not_installed(tmp_path):
    """nnUNet_extTrainer is inherited by children, which may run another environment's Python."""
    shutil.copy(Path(_startup.PLUGIN_FOLDER) / "neurino_trainers.py", tmp_path)
    code = "import neurino_trainers; print(hasattr(neurino_trainers, 'nnUNetTrainerNeurINO'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("editable", [False, True], ids=["regular", "editable"])
def test_install_registers_and_uninstall_leaves_nothing(tmp_path, editable):
    pytest.importorskip("setuptools", minversion="68")
    source = tmp_path / "source"
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "demo_output", "*.egg-info", "tests"),
    )
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = next(path for path in (environment / "bin/python", environment / "Scripts/python.exe") if path.exists())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "--quiet"]
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    clean = {key: value for key, value in os.environ.items() if key not in ("nnUNet_extTrainer", "PYTHONPATH")}
    (site / "other.py").touch()  # pip removes folders that it leaves empty
    before = {path for path in environment.rglob("*") if "__pycache__" not in path.parts}

    hook = "build_editable" if editable else "build_wheel"
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    # The back end's own hook: pip would build in an isolated environment, which needs a network.
    build = f"import sys, setuptools.build_meta as back_end; back_end.{hook}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, wheels], cwd=source, env=clean, check=True, capture_output=True)
    target = str(next(wheels.glob("*.whl")))
    subprocess.run([*pip, "install", "--no-deps", target], check=True, env=clean)

    show = [python, "-c", "import os; print(os.environ.get('nnUNet_extTrainer', ''))"]
    folder = subprocess.run(show, capture_output=True, text=True, check=True, env=clean, cwd=tmp_path).stdout.strip()
    assert Path(folder).name == "plugin"
    assert (Path(folder) / "neurino_trainers.py").is_file()
    assert Path(folder).is_relative_to(source if editable else site)
    if not editable:
        assert (site / "nnunet_neurino" / "py.typed").is_file()
        assert not (site / "tests").exists()
        assert not (site / "dataset_conversion").exists()

    subprocess.run([*pip, "uninstall", "--yes", "nnunet-neurino"], check=True, env=clean)
    after = {path for path in environment.rglob("*") if "__pycache__" not in path.parts}
    assert after == before
    assert subprocess.run(show, capture_output=True, text=True, check=True, env=clean).stdout.strip() == ""
