"""The checks, in the order in which they are shown."""

from nnunet_neurino.diagnosis import installation, surroundings
from nnunet_neurino.diagnosis.result import Check

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
