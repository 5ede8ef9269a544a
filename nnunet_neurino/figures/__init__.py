"""What people look at: overlays of a case, curves of a training, features of an encoder, and a page of them all."""

from nnunet_neurino.figures.case import CaseView
from nnunet_neurino.figures.curves import read_training_log, training_figure
from nnunet_neurino.figures.disagreement import disagreement
from nnunet_neurino.figures.features import encoder_features, feature_figure, pca_rgb
from nnunet_neurino.figures.load import load_case, match_cases
from nnunet_neurino.figures.overlays import projection_figure, section_figure
from nnunet_neurino.figures.page import Page, png_bytes

__all__ = [
    "CaseView",
    "Page",
    "disagreement",
    "encoder_features",
    "feature_figure",
    "load_case",
    "match_cases",
    "pca_rgb",
    "png_bytes",
    "projection_figure",
    "read_training_log",
    "section_figure",
    "training_figure",
]
