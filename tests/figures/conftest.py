"""Small cases to draw."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_neurino.figures import CaseView
from nnunet_neurino.synth import SynthVolume, generate, preset


@pytest.fixture(scope="session")
def volume() -> SynthVolume:
    return generate(preset("demo", shape=(12, 40, 48), spacing=(2.0, 0.5, 0.5)), 1)


@pytest.fixture
def case(volume: SynthVolume) -> CaseView:
    """Everything there can be; the prediction misses the right half and invents a bar."""
    prediction = volume.mask.astype(bool)
    prediction[:, :, 30:] = False
    prediction[2, 2, 2:20] = True
    return CaseView(
        "a case",
        image=volume.image,
        truth=volume.mask,
        prediction=prediction,
        truth_tree=volume.tree,
        tree=volume.trees[0],
        spacing=volume.spacing,
    )


@pytest.fixture
def pixels():
    """Renders a figure to (height, width, 3) numbers from 0 to 255."""

    def render(figure) -> np.ndarray:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)

    return render
