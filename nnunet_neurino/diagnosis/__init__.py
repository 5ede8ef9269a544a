"""What ``neurino doctor`` looks at: an installation, seen the way nnU-Net will see it."""

from nnunet_neurino.diagnosis.checks import CHECKS
from nnunet_neurino.diagnosis.result import Check, Level, Result

__all__ = ["CHECKS", "Check", "Level", "Result"]
