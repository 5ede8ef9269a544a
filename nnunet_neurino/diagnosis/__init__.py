"""What ``neurino doctor`` looks at: an installation, seen the way nnU-Net will see it."""

from nnunet_neurino.diagnosis import installation, surroundings
from nnunet_neurino.diagnosis.result import Check, Level, Result

#: In the order in which they are shown.
CHECKS = (
    Check(installation.python),
    Check(installation.packages),
    Check(installation.startup),
    Check(installation.commands),
    Check(installation.trainer, slow=True),
    Check(surroundings.folders),
    Check(surroundings.device),
    Check(surroundings.memory),
    Check(surroundings.weights),
    Check(surroundings.external_tracers),
)

__all__ = ["CHECKS", "Check", "Level", "Result"]
