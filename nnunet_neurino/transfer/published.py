"""State dicts of the published NeurINO network -> state dicts of ours.

The published network (an encoder of the transformers library, patched to three dimensions, and a MedNeXt decoder) is
recognised from names and shapes alone; nothing of its code is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.convnext import SIZES
from nnunet_neurino.networks.neurino import NeurINO
from nnunet_neurino.networks.old_names import Rules, substituted
from nnunet_neurino.transfer.libraries import TRANSFORMERS_CONVNEXT

_WRAPPERS = ("module.", "_orig_mod.")

# The published network has these without using them: a final norm and the parameter of a checkpointing workaround.
_UNUSED = re.compile(r"dummy_tensor|encoder\.(?:model\.)?layer_norm\.(?:weight|bias)|.*\.(?:rmax|dmax)_buf")

_RULES: Rules = (
    (r"^out_(\d)\.conv_out\.", r"decoder.seg_layers.\1."),
    (r"^bottleneck\.", "decoder.bottleneck."),
    (r"^up_extra\.", "decoder.levels.0.up."),
    (r"^(decoder\..+)\.conv1\.", r"\1.depthwise."),
    (r"^(decoder\..+)\.conv2\.", r"\1.expand."),
    (r"^(decoder\..+)\.conv3\.", r"\1.project."),
    (r"^(decoder\..+)\.res_conv\.", r"\1.shortcut."),
    (r"\.grn_gamma$", ".grn.weight"),
    (r"\.grn_beta$", ".grn.bias"),
)


@dataclass(frozen=True)
class PublishedNetwork:
    """What a state dict of the published network says about it; the arguments of our ``NeurINO``."""

    in_channels: int
    num_classes: int
    size: str
    stem_stride: int
    grn: bool
    deep_supervision: bool
    norm: str


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes that DataParallel, DistributedDataParallel and torch.compile put in front."""
    names = list(state)
    for prefix in _WRAPPERS * 2:
        if names and all(name.startswith(prefix) for name in names):
            state = {name[len(prefix) :]: tensor for name, tensor in state.items()}
            names = list(state)
    return dict(state)


def describe_published(state_dict: Mapping[str, Tensor]) -> PublishedNetwork:
    """Read size, stem, channels and options off a state dict of the published network."""
    state = _plain(state_dict)
    stem = _needed(state, "encoder.stages.0.downsample_layers.0.weight")
    width = stem.shape[0]
    depth = len({m[1] for name in state if (m := re.match(r"encoder\.stages\.2\.layers\.(\d+)\.", name))})
    sizes = [name for name, size in SIZES.items() if (size.widths[0], size.depths[2]) == (width, depth)]
    if not sizes:
        raise NeurinoError(
            f"published checkpoint: an encoder of width {width} with {depth} blocks in its third stage is none of "
            f"{', '.join(SIZES)}"
        )
    return PublishedNetwork(
        in_channels=stem.shape[1],
        num_classes=_needed(state, "out_0.conv_out.bias").shape[0],
        size=sizes[0],
        stem_stride=4 if "up_extra.conv1.weight" in state else 2,
        grn="up_3.grn_gamma" in state,
        deep_supervision="out_1.conv_out.weight" in state,
        norm="batch" if "up_3.norm.running_mean" in state else "group",
    )


def from_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn a state dict of the published network into one of ``nnunet_neurino.networks.NeurINO``.

    Works for every size, stem, number of channels and classes, with and without GRN, and with the prefixes of
    parallel wrappers; ``describe_published`` gives the arguments of the network that it fits. Heads that a network
    published without deep supervision lacks are made, filled with zeros.

    Args:
        state_dict: names and tensors of the published network.

    Returns:
        names and tensors that ``NeurINO.load_state_dict`` takes, strictly.

    Raises:
        NeurinoError: a name or a shape that is not of the published network, or a name that is missing.
    """
    network = describe_published(state_dict)
    result = {}
    theirs = {}
    for name, tensor in _plain(state_dict).items():
        if not _UNUSED.fullmatch(name):
            ours = _our_name(name, network.stem_stride)
            result[ours] = _reshaped(ours, tensor)
            theirs[ours] = name
    widths = SIZES[network.size].widths
    head_widths = (widths[0] // 4, widths[0] // 2, *widths) if network.stem_stride == 4 else (widths[0] // 2, *widths)
    for head in range(5):
        result.setdefault(f"decoder.seg_layers.{head}.weight", torch.zeros(network.num_classes, head_widths[head]))
        result.setdefault(f"decoder.seg_layers.{head}.bias", torch.zeros(network.num_classes))
    _check(result, theirs, network)
    return result


def _check(result: Mapping[str, Tensor], theirs: Mapping[str, str], network: PublishedNetwork) -> None:
    """Raise ``NeurinoError`` unless these are all the weights of our network; ``theirs`` are the published names."""
    with torch.device("meta"):
        ours = NeurINO(
            network.in_channels, network.num_classes, network.size, network.stem_stride, network.grn, norm=network.norm
        ).state_dict()
    title = f"NeurINO-{network.size.capitalize()}"
    # PyTorch itself makes the counters of batches that old checkpoints lack.
    missing = [name for name in ours if name not in result and not name.endswith("num_batches_tracked")]
    if missing:
        raise NeurinoError(
            f"published checkpoint: {len(missing)} weights of {title} are missing, the first is "
            f"our '{missing[0]}'; it is not whole, or of a variant that was not published"
        )
    for name, tensor in result.items():
        if name not in ours:
            raise NeurinoError(f"published checkpoint: '{theirs[name]}' is not a name of the published {title} network")
        if tensor.shape != ours[name].shape:
            raise NeurinoError(
                f"published checkpoint: '{theirs[name]}' is {tuple(tensor.shape)} in our layout; the published "
                f"{title} has {tuple(ours[name].shape)} there"
            )


def _plain(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without wrappers, and with the encoder's names as transformers 4.x writes them (5.x adds ``model.``)."""
    return {re.sub(r"^encoder\.model\.", "encoder.", name): tensor for name, tensor in unwrapped(state_dict).items()}


def _needed(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise NeurinoError(f"published checkpoint: '{name}' is missing; this is not a published NeurINO network")
    return state[name]


def _our_name(name: str, stem_stride: int) -> str:
    """Our name for a name of the published network; another name becomes one that our network does not have."""
    if name.startswith("encoder."):
        return "encoder." + substituted(TRANSFORMERS_CONVNEXT, name.removeprefix("encoder."))
    finer = 1 if stem_stride == 4 else 0  # our level of the published level 0
    levels = [(rf"^up_{n}\.", f"decoder.levels.{n + finer}.up.") for n in range(4)]
    levels += [(rf"^dec_block_{n}\.", f"decoder.levels.{n + finer}.blocks.") for n in range(4)]
    return substituted((*levels, *_RULES), name)


def _reshaped(ours: str, tensor: Tensor) -> Tensor:
    """1x1x1 convolutions as matrices (transposed ones are stored the other way round), GRN as vectors."""
    if ".grn." in ours:
        return tensor.reshape(-1)
    if tensor.ndim == 5 and tensor.shape[2:] == (1, 1, 1) and ".depthwise." not in ours:
        matrix = tensor.reshape(tensor.shape[:2])
        return matrix.T.contiguous() if ".shortcut." in ours or ".seg_layers." in ours else matrix
    return tensor
