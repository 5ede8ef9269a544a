"""Image stacks in and out: TIFF, folders of slices, Vaa3D raw and compressed, NIfTI, NRRD; with their voxel size."""

from nnunet_neurino.images.read import read_stack
from nnunet_neurino.images.stack import Stack
from nnunet_neurino.images.write import write_nifti, write_tiff

__all__ = ["Stack", "read_stack", "write_nifti", "write_tiff"]
