"""SWC tracings and image stacks -> an nnU-Net raw data set: pairs, alignment, labels, blocks, splits, report."""

from nnunet_neurino.conversion.alignment import Alignment, check_alignment
from nnunet_neurino.conversion.dataset import convert_dataset
from nnunet_neurino.conversion.pairing import find_cases
from nnunet_neurino.conversion.settings import Case, ConvertSettings
from nnunet_neurino.conversion.summary import Conversion
from nnunet_neurino.conversion.table import read_pairs

__all__ = [
    "Alignment",
    "Case",
    "Conversion",
    "ConvertSettings",
    "check_alignment",
    "convert_dataset",
    "find_cases",
    "read_pairs",
]
