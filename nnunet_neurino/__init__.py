"""NeurINO for nnU-Net: 3D neuron segmentation and reconstruction.

Importing this package is cheap on purpose (it runs at every start of Python): its folders, such as
``nnunet_neurino.networks`` or ``nnunet_neurino.swc``, are imported by name where they are needed.
"""

from nnunet_neurino import _startup

__version__ = "0.1.0"

_startup.register()
