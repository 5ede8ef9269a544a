"""List, check and convert 2D weights: a ConvNeXt's, which NeurINO starts from, or (--vit) a ViT's, for DINeuro
and DINOWindow.

`list` shows what is known and what lies in this machine's Hugging Face cache. `check` reads a source wholly and says
what it is. `convert` writes it as one small file of the encoder alone, which loads anywhere, without a network.

SOURCE is a size (tiny, small, base, large: DINOv3; with --vit small, base: DINO, small_v3, base_v3: DINOv3; from
timm's pages), the name of a timm model or of a page on the Hugging Face hub, a folder of timm or transformers, a
.safetensors file, or Meta's original .pth. Nothing in a file is executed. With HF_HUB_OFFLINE=1 nothing is downloaded.
To train with a source, give it to `neurino train --weights` or set NNUNET_NEURINO_WEIGHTS to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_neurino.errors import NeurinoError

if TYPE_CHECKING:
    from nnunet_neurino.transfer import Weights2D
    from nnunet_neurino.transfer.flat import FlatNetwork

EXAMPLE = "  neurino weights list"

_LICENCE = (
    "DINOv3's weights have a licence of Meta's own. Meta's pages ask you to accept it before you can download\n"
    "(`hf auth login`, then `hf download PAGE`); what you make from the weights falls under it, too."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="known weights, and which of them are in the Hugging Face cache")
    check = actions.add_parser("check", help="read a source wholly and say what it is")
    convert = actions.add_parser("convert", help="write the encoder of a source as one .safetensors file")
    for action in (check, convert):
        action.add_argument("source", metavar="SOURCE", help="see above")
        text = "SOURCE is a vision transformer with patches of 16 pixels (default: a ConvNeXt)"
        action.add_argument("--vit", action="store_true", help=text)
    text = "file to write, ending in .safetensors"
    convert.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help=text)


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        _list()
    elif args.action == "check":
        _check(args.source, args.vit)
    else:
        _convert(args.source, args.output, args.vit)
    return 0


def _list() -> None:
    from nnunet_neurino.transfer import VIT_PAGES, hub
    from nnunet_neurino.transfer.flat import CONVNEXT, VIT

    print(f"{'size':<6} {'parameters':>11}  {'widths':<20} {'blocks':<11} in cache  pages on the Hugging Face hub")
    for name in hub.DINOV3:
        size = CONVNEXT.sizes[name]
        pages = (hub.page_of(hub.DINOV3[name]), hub.DINOV3_META[name])
        here = "yes" if any(hub.cached(page) for page in pages) else "no"
        widths, depths = ("-".join(map(str, numbers)) for numbers in (size.widths, size.depths))
        print(f"{name:<6} {_count(CONVNEXT, size):>11,}  {widths:<20} {depths:<11} {here:<8}  {', '.join(pages)}")
    for name, model in VIT_PAGES.items():
        size, page = VIT.sizes[name], hub.page_of(model)
        here = "yes" if hub.cached(page) else "no"
        described = f"{size.width} wide, {size.depth} blocks, --vit"
        print(f"{'ViT ' + name:<12} {_count(VIT, size):>11,}  {described}  {here:<8}  {page}")
    print(f"\n{_LICENCE}")


def _count(network: FlatNetwork, size: Any) -> int:
    return sum(tensor.numel() for tensor in network.expected(size).values())


def _load(source: str, vit: bool) -> Weights2D | None:
    from nnunet_neurino.transfer import load_2d_weights, load_vit_weights

    return load_vit_weights(source) if vit else load_2d_weights(source)


def _check(source: str, vit: bool) -> None:
    weights = _load(source, vit)
    if weights is None:
        print("none: training from scratch")
        return
    print(f"source:       {weights.source}")
    print(f"architecture: {weights.architecture}")
    print(f"names as in:  {weights.scheme}")
    print(f"tensors:      {len(weights.state)}, every name and shape as expected, all values finite")
    print(f"sha256:       {weights.sha256}")


def _convert(source: str, output: Path, vit: bool) -> None:
    from safetensors.torch import save_file

    from nnunet_neurino.files import atomic_path

    if output.suffix != ".safetensors":
        raise NeurinoError(f"{output}: the name of the file to write must end in .safetensors")
    weights = _load(source, vit)
    if weights is None:
        raise NeurinoError("none: there is nothing to convert")
    with atomic_path(output) as unfinished:
        tensors = {name: tensor.contiguous() for name, tensor in weights.state.items()}
        save_file(tensors, unfinished, metadata=weights.record)
    print(f"{output}: {weights.architecture} (from {weights.source}, names as in {weights.scheme})")
