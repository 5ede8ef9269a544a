"""Names, hashes and numbers of cached tokens."""

from __future__ import annotations

import json
import re

import torch
from token_cases import prepared
from window_cases import network

from nnunet_neurino.trainers.windows.token_cache import weights_hash
from nnunet_neurino.trainers.windows.token_file import as_half


def test_tokens_too_large_for_half_precision_become_the_largest() -> None:
    found = as_half(torch.tensor([1e6, -1e6, 1.5]))
    assert found.tolist() == [65504.0, -65504.0, 1.5]


def test_the_weights_hash_sees_every_number_and_name() -> None:
    ours = network()
    first = weights_hash(ours.encoder)
    assert weights_hash(network().encoder) == first
    with torch.no_grad():
        ours.encoder.norm.bias[-1] += 1e-6
    assert weights_hash(ours.encoder) != first
    halves = torch.nn.ParameterDict({"x": torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))})
    renamed = torch.nn.ParameterDict({"y": torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))})
    assert weights_hash(halves) != weights_hash(renamed)


def test_keys_say_nothing_of_the_place(tmp_path) -> None:
    made = prepared(tmp_path)
    noted = json.loads((made.folder / "a__copy00.json").read_text())
    assert set(noted) == {"key", "blocks"}
    assert re.fullmatch("[0-9a-f]{64}", noted["key"])
