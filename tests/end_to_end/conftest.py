"""Generated data sets, planned and preprocessed once by nnU-Net's own command, for all tests of this folder."""

from __future__ import annotations

import pytest
from e2e_workplace import ANISOTROPIC, BLOB, ISOTROPIC, REGIONS, Workplace


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Folders with the data sets, planned and preprocessed."""
    place = Workplace(tmp_path_factory.mktemp("nnunet"))
    for folder in (place.raw, place.preprocessed, place.results):
        folder.mkdir()
    for dataset in (ISOTROPIC, ANISOTROPIC, REGIONS, BLOB):
        dataset.write(place.raw)
    place.run(
        "nnUNetv2_plan_and_preprocess", "-d", "901", "902", "903", "904", "-c", "3d_fullres",
        "-npfp", "1", "-np", "1", "--no_pbar",
    )  # fmt: skip
    return place


@pytest.fixture
def inside(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workplace's environment in this process: quicker than commands, which import everything anew."""
    for name, value in workplace.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
