"""Caches of the tokens of small cases, and what tests look at in them."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import torch
import window_cases
from window_cases import PATCH, SHAPES, dataset, network

from nnunet_neurino.trainers.windows.copies import CopyRecipe
from nnunet_neurino.trainers.windows.token_cache import TokenCache

Usage = namedtuple("Usage", "total used free")
"""What ``shutil.disk_usage`` gives."""

RECIPE = CopyRecipe(copies=3)
IDENTITY = {"configuration": "3d_fullres", "normalisation": ["ZScoreNormalization"]}


def cache(folder: Path, ours=None, recipe: CopyRecipe = RECIPE, identity=None) -> TokenCache:
    """A cache of the cases of ``folder``; they are written if they are not there."""
    source = folder / "preprocessed"
    names = sorted(p.stem for p in source.glob("*.b2nd") if not p.stem.endswith("_seg"))
    data = window_cases.nnUNetDatasetBlosc2(str(source), names) if names else dataset(source)
    return TokenCache(folder / "tokens", ours or network(), recipe, PATCH, data, identity or IDENTITY)


def prepared(folder: Path, **options) -> TokenCache:
    made = cache(folder, **options)
    made.prepare(SHAPES, lambda line: None)
    return made


def states(made: TokenCache) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in made.folder.glob("*.npy")}


def encoded(ours, monkeypatch) -> list[int]:
    """Grows by one with each window that is encoded."""
    done: list[int] = []
    tokens = type(ours).tokens
    monkeypatch.setattr(type(ours), "tokens", lambda self, window: done.append(1) or tokens(self, window))
    return done


def change_weights(folder: Path, monkeypatch) -> dict:
    ours = network()
    with torch.no_grad():
        ours.encoder.blocks[0].attn.qkv.weight[0, 0] += 1
    return {"ours": ours}
