"""Folds keep specimens together; blocks cover volumes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_neurino.conversion.blocks import block_boxes
from nnunet_neurino.conversion.splits import make_splits, specimen_of
from nnunet_neurino.errors import NeurinoError


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=40), st.integers(2, 7))
def test_no_specimen_is_on_both_sides(sizes: list[int], folds: int):
    specimens = {f"s{i}": [f"s{i}_c{j}" for j in range(n)] for i, n in enumerate(sizes)}
    splits = make_splits(specimens, folds)
    assert len(splits) == min(folds, len(sizes))
    everything = sorted(c for cases in specimens.values() for c in cases)
    for split in splits:
        assert sorted(split["train"] + split["val"]) == everything
        assert not {c.split("_")[0] for c in split["train"]} & {c.split("_")[0] for c in split["val"]}
        assert split["train"]
        assert split["val"]
    # Every case is validated once, and no fold is larger than needed.
    assert sorted(c for split in splits for c in split["val"]) == everything
    counts = [len(split["val"]) for split in splits]
    assert max(counts) - min(counts) <= max(sizes)
    reordered = dict(sorted(specimens.items(), key=lambda item: hash(item[0])))
    assert make_splits(reordered, folds) == splits


def test_one_specimen_has_no_splits():
    assert make_splits({"a": ["a1", "a2"]}) == []
    assert make_splits({}) == []


def test_many_blocks_are_dealt_out_at_once():
    splits = make_splits({f"s{i}": [f"s{i}_c{j}" for j in range(2000)] for i in range(20)})  # a minute, when quadratic
    assert [len(split["train"]) for split in splits] == [32_000] * 5


def test_specimen_rules():
    assert specimen_of("mouse3_block7", r"^(mouse\d+)_") == "mouse3"
    assert specimen_of("mouse3_block7", r"^mouse\d+") == "mouse3"
    assert specimen_of("mouse3_block7", None) == "mouse3_block7"
    assert specimen_of("mouse3_block7", r"^(rat)", given="m3") == "m3"
    with pytest.raises(NeurinoError, match="--specimen"):
        specimen_of("mouse3", r"^(rat)")


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(*[st.integers(1, 25)] * 3),
    st.tuples(*[st.integers(4, 15)] * 3),
    st.tuples(*[st.integers(0, 3)] * 3),
)
def test_blocks_cover_and_overlap(shape: tuple, block: tuple, overlap: tuple):
    seen = np.zeros(shape, dtype=int)
    boxes = list(block_boxes(shape, block, overlap))
    for box in boxes:
        seen[box] += 1
        assert seen[box].shape == tuple(min(b, n) for b, n in zip(block, shape, strict=True))
    assert seen.min() >= 1
    assert len({tuple(s.start for s in box) for box in boxes}) == len(boxes)
    for axis in range(3):
        starts = sorted({box[axis].start for box in boxes})
        assert all(b - a <= block[axis] - overlap[axis] for a, b in itertools.pairwise(starts))
