"""2D weights -> 3D weights: what the new axis, the depth, does with a kernel that was made for one slice.

Rules, for a kernel of T taps along the depth:

* ``center``: the 2D kernel on tap ``T // 2``, zeros elsewhere. With even kernels (stem, downsampling) only every second
  slice is seen, and depth shifts by half a voxel a step.
* ``average``: the 2D kernel over T on every tap. Every slice is seen, at the price of blur along the depth.
* ``center_sym``: as ``center`` for odd kernels; half the 2D kernel on each of the two middle taps of even ones. No
  slice is lost and depth stays where it is.
* ``triplane``: the mean of ``center_sym`` kernels whose depth is z, y and x. For isotropic data. Its kernels are cubes;
  where a kernel has fewer taps along an axis, those beyond its ends are added to its ends.

With the first three, a volume of identical slices gives at every stage exactly what the 2D network gives for one slice
(``average``: away from the first and last slices, which see zeros beyond the volume). With ``triplane`` and 7 taps
along the depth the network prefers no axis: turning a volume's axes (z, y, x) -> (y, x, z) turns the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.convnext import BLOCK_KERNEL, ConvNeXt3d, EncoderGeometry
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.networks.neurino import encoder_geometry, neurino_levels
from nnunet_neurino.transfer.flat import CONVNEXT
from nnunet_neurino.transfer.weights import Weights2D, encoder_state, fill

RULES = ("center", "average", "center_sym", "triplane")
RGB_RULES = ("sum", "mean", "repeat")


def default_kernel_depth(rule: str) -> int:
    """Taps along the depth of the blocks' depthwise kernels that suit a rule best: 3, as published; 7 for ``triplane``.

    It is for whoever builds the network; ``inflate`` takes 3 if not told, as ``NeurINO`` does.
    """
    return BLOCK_KERNEL if rule == "triplane" else 3


def inflate(
    weights: Weights2D | Mapping[str, Tensor],
    rule: str = "center",
    *,
    in_channels: int = 1,
    rgb: str = "sum",
    stem_stride: int = 2,
    strides: Sequence[Sequence[int]] | None = None,
    kernel_depth: int | Sequence[int] = 3,
    depth_axis: int = 0,
) -> dict[str, Tensor]:
    """Make the state dict of NeurINO's encoder from the weights of a 2D ConvNeXt.

    Args:
        weights: from ``load_2d_weights``, or a state dict as timm, transformers or Meta's files name it. Not changed.
        rule: ``center``, ``average``, ``center_sym`` or ``triplane``; see above.
        in_channels: channels of the image.
        rgb: how three input channels become ``in_channels``; see ``adapt_channels``.
        stem_stride: 2 or 4, as of ``NeurINO``.
        strides: rows of strides as of ``NeurINO``; an axis that a layer does not halve has one tap in that layer.
        kernel_depth: taps along the depth of the blocks' kernels, odd: one number or one for each stage.
        depth_axis: 0 (z), 1 (y) or 2 (x).

    Returns:
        names and tensors for ``NeurINO(...).encoder.load_state_dict``, of the dtype of ``weights``.
    """
    geometry = encoder_geometry(neurino_levels(strides, stem_stride), kernel_depth, depth_axis)
    return inflate_for(geometry, weights, rule, in_channels, rgb)


def inflate_for(
    geometry: EncoderGeometry,
    weights: Weights2D | Mapping[str, Tensor],
    rule: str = "center",
    in_channels: int = 1,
    rgb: str = "sum",
) -> dict[str, Tensor]:
    """``inflate`` for an encoder of any geometry (``encoder.geometry``)."""
    result = {}
    for name, tensor in encoder_state(weights, CONVNEXT).items():
        if tensor.ndim == 4:
            stage = int(name.split(".")[1]) if name.startswith("stages.") else 0
            taps = geometry.block_kernel(stage) if ".conv_dw." in name else geometry.down_kernel(stage)
            kernel = adapt_channels(tensor, in_channels, rgb) if name.startswith("stem.") else tensor
            result[name] = inflate_kernel(kernel, taps, rule, geometry.depth_axis)
        else:
            result[name] = tensor.clone()
    return result


def inflate_kernel(kernel: Tensor, taps: Triple, rule: str, depth_axis: int = 0) -> Tensor:
    """Give a 2D kernel (out, in, h, w) a depth.

    Args:
        kernel: of a 2D convolution.
        taps: of the 3D kernel, (z, y, x). In-plane axes have the taps of the 2D kernel, or one: along an axis that a
            layer does not halve the 2D kernel's taps are added up.
        rule: see above.
        depth_axis: which of the three axes the 2D kernel does not have.

    Returns:
        (out, in, z, y, x).
    """
    if rule not in RULES:
        raise NeurinoError(f"inflation rule '{rule}' is not known: expected one of {', '.join(RULES)}")
    if rule == "triplane":
        return _triplane(kernel, taps)
    depth = taps[depth_axis]
    plane = [n for axis, n in enumerate(taps) if axis != depth_axis]
    for axis, (have, want) in enumerate(zip(kernel.shape[2:], plane, strict=True), start=2):
        if want == 1 != have:
            kernel = kernel.sum(axis, keepdim=True)
        elif want != have:
            raise NeurinoError(f"a kernel of {tuple(kernel.shape[2:])} taps cannot become one of {taps} (z, y, x)")
    share = _shares(rule, depth).to(kernel)
    shape = [1] * 5
    shape[2 + depth_axis] = depth
    return kernel.unsqueeze(2 + depth_axis) * share.view(shape)


def _shares(rule: str, taps: int) -> Tensor:
    """How much of the 2D kernel each tap along the depth gets; sums to one."""
    if rule == "average":
        return torch.full((taps,), 1 / taps, dtype=torch.float64)
    shares = torch.zeros(taps, dtype=torch.float64)
    if rule == "center_sym" and taps % 2 == 0:
        shares[taps // 2 - 1 : taps // 2 + 1] = 0.5
    else:
        shares[taps // 2] = 1.0
    return shares


def _triplane(kernel: Tensor, taps: Triple) -> Tensor:
    side = kernel.shape[2]
    across_z = inflate_kernel(kernel, (side, side, side), "center_sym", 0)
    # The two other turns of (z, y, x) that keep the order of the axes.
    cube = (across_z + across_z.permute(0, 1, 4, 2, 3) + across_z.permute(0, 1, 3, 4, 2)) / 3
    for axis, count in enumerate(taps, start=2):
        cube = _folded(cube, axis, count)
    return cube


def _folded(kernel: Tensor, axis: int, taps: int) -> Tensor:
    """Shorten an axis to its middle ``taps``; taps beyond its new ends are added to the ends."""
    surplus = kernel.shape[axis] - taps
    if surplus == 0:
        return kernel
    if surplus < 0 or (surplus % 2 and taps > 1):
        raise NeurinoError(f"a kernel of {kernel.shape[axis]} taps cannot be folded into {taps}")
    place = (torch.arange(kernel.shape[axis], device=kernel.device) - surplus // 2).clamp(0, taps - 1)
    shape = [*kernel.shape[:axis], taps, *kernel.shape[axis + 1 :]]
    return kernel.new_zeros(shape).index_add_(axis, place, kernel)


def adapt_channels(kernel: Tensor, in_channels: int, rule: str = "sum") -> Tensor:
    """Make a stem kernel (out, 3, h, w) for RGB into one for ``in_channels`` channels; three stay as they are.

    Args:
        kernel: of the 2D stem.
        in_channels: channels of the image.
        rule: ``sum``: every channel gets the sum of the three kernels over ``in_channels``, so that an image that is
            the same in all channels is seen as the 2D network sees a grey one. ``mean``: a third of that, as published.
            ``repeat``: the channels take the kernels of red, green, blue, red, ... in turn, times 3 over
            ``in_channels``.
    """
    if rule not in RGB_RULES:
        raise NeurinoError(f"channel rule '{rule}' is not known: expected one of {', '.join(RGB_RULES)}")
    if in_channels == kernel.shape[1]:
        return kernel
    if rule == "repeat":
        turns = [channel % kernel.shape[1] for channel in range(in_channels)]
        return kernel[:, turns] * (kernel.shape[1] / in_channels)
    grey = kernel.sum(1, keepdim=True) if rule == "sum" else kernel.mean(1, keepdim=True)
    return grey.expand(-1, in_channels, -1, -1) / in_channels


def inflate_into(network: nn.Module, weights: Weights2D, rule: str = "center", rgb: str = "sum") -> None:
    """Fill the encoder of ``network`` (a ``NeurINO``) with inflated weights, in place, wholly or not at all."""
    encoder = network.get_submodule("encoder")
    if not isinstance(encoder, ConvNeXt3d):
        raise NeurinoError(f"{type(network).__name__} has no encoder that 2D weights can be inflated into")
    in_channels = encoder.state_dict()["stem.0.weight"].shape[1]
    fill(encoder, inflate_for(encoder.geometry, weights, rule, in_channels, rgb), weights)
