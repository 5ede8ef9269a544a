"""Batches of windows: the same from kept and from computed tokens, and labels as nnU-Net gives them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from window_cases import PATCH, SHAPES, WINDOW, dataset, label_manager, network

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.losses import PortionedDiceCE
from nnunet_neurino.networks.two_pass import Windows, two_pass
from nnunet_neurino.trainers.windows.copies import PLAIN, CopyRecipe
from nnunet_neurino.trainers.windows.loader import ComputedWindows, WindowLoader
from nnunet_neurino.trainers.windows.token_cache import TokenCache

RECIPE = CopyRecipe(copies=4)
LARGE = {"a": (9, 20, 33), "b": (3, 15, 40), "c": (17, 60, 70)}
"""The last one is some blocks of a patch."""


def pair(folder: Path, recipe: CopyRecipe = RECIPE, ours=None, channels: int = 1, shapes=LARGE, **options):
    """A loader with a cache and one without, that are otherwise the same."""
    ours = ours or network(num_classes=3, in_channels=channels)
    manager = options.get("labels", label_manager())
    if not (folder / "preprocessed").exists():
        dataset(folder / "preprocessed", shapes, manager, shapes, channels)
    data = nnUNetDatasetBlosc2(str(folder / "preprocessed"), list(shapes))
    cache = TokenCache(folder, ours, recipe, PATCH, data, {})
    cache.prepare(shapes, lambda line: None)
    options = {"batch_size": 2, "seed": 0, "oversample_foreground": 0.5, "labels": manager} | options
    return tuple(
        WindowLoader(data, list(shapes), ours, PATCH, recipe=recipe, cache=c, **options) for c in (cache, None)
    )


def drawing(folder: Path, recipe: CopyRecipe, shape, **options) -> WindowLoader:
    """A loader of one case, without a cache."""
    options = {"batch_size": 2, "seed": 0, "oversample_foreground": 0.5, "labels": label_manager()} | options
    data = dataset(folder, ["c"], options["labels"], {"c": shape})
    return WindowLoader(data, ["c"], network(), PATCH, recipe=recipe, cache=None, **options)


def all_tokens(windows: Windows) -> torch.Tensor:
    return torch.stack([windows.tokens(number) for number in range(len(windows.grid))])


@pytest.mark.parametrize("channels", [1, 2])
def test_kept_and_computed_tokens_are_of_the_same_copies_and_blocks(tmp_path, channels) -> None:
    kept, computed = pair(tmp_path, channels=channels)
    seen = []
    for one, two in zip(islice(kept, 8), islice(computed, 8), strict=True):
        assert one["keys"] == two["keys"]
        assert torch.equal(one["target"], two["target"])
        assert isinstance(one["data"], Windows)
        assert isinstance(two["data"], Windows)
        assert one["data"].grid == two["data"].grid
        first, second = all_tokens(one["data"]), all_tokens(two["data"])
        assert first.dtype == torch.float32
        assert first.shape == second.shape == (8, 2, channels * 256, 4, 2, 2)
        torch.testing.assert_close(first, second, atol=2e-3, rtol=1e-3)
        seen.append(first[:, 0])
    assert not any(torch.allclose(a, b, atol=1e-2) for k, a in enumerate(seen) for b in seen[:k]), "copies differ"


def losses(loader: WindowLoader, steps: int) -> list[float]:
    ours = network(num_classes=3).train()
    optimiser = torch.optim.AdamW(ours.decoder.parameters(), 1e-3)
    loss = PortionedDiceCE()
    found = []
    torch.manual_seed(1)  # dropout's
    for batch in islice(loader, steps):
        target = batch["target"]
        value = two_pass(ours.decoder, batch["data"].to("cpu"), lambda logits, target=target: loss(logits, target))
        optimiser.step()
        optimiser.zero_grad()
        found.append(float(value))
    return found


def test_training_from_the_cache_has_the_same_losses(tmp_path) -> None:
    kept, computed = pair(tmp_path)
    one, two = losses(kept, 10), losses(computed, 10)
    np.testing.assert_allclose(one, two, atol=1e-3)
    assert len({round(value, 2) for value in one}) > 3
    kept, _ = pair(tmp_path, seed=1)
    assert np.abs(np.subtract(losses(kept, 10), one)).max() > 1e-2, "another seed is another training"


def test_the_seed_decides_everything_and_any_numbers_make_one(tmp_path) -> None:
    def targets(seed):
        return torch.stack([batch["target"] for batch in islice(pair(tmp_path, seed=seed)[0], 3)])

    torch.manual_seed(3)
    first = targets([0, 5])
    torch.manual_seed(8)
    assert torch.equal(targets([0, 5]), first)
    assert not torch.equal(targets([1, 5]), first)


def test_every_case_comes_once_in_each_pass(tmp_path) -> None:
    loader, _ = pair(tmp_path)
    keys = [key for batch in islice(loader, 9) for key in batch["keys"]]
    passes = [keys[first : first + 3] for first in range(0, 18, 3)]
    assert all(sorted(some) == sorted(LARGE) for some in passes)
    assert len({tuple(some) for some in passes}) > 1


def test_all_copies_come_both_ways_up(tmp_path) -> None:
    loader = drawing(tmp_path, RECIPE, PATCH)
    drawn = [loader._draw().volume for _ in range(64)]
    assert {(volume.number, volume.upside_down) for volume in drawn} == {(k, u) for k in range(4) for u in (0, 1)}
    loader = drawing(tmp_path, CopyRecipe(2, mirroring=False), PATCH)
    assert not any(loader._draw().volume.upside_down for _ in range(32))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
def test_targets_are_nnunets(tmp_path, regions, ignore) -> None:
    manager = label_manager(regions, ignore)
    kept, _ = pair(tmp_path, PLAIN, shapes={"c": PATCH}, labels=manager, batch_size=2)
    batch = next(kept)
    transforms = nnUNetTrainer.get_validation_transforms(
        None,
        regions=manager.foreground_regions if manager.has_regions else None,
        ignore_label=manager.ignore_label,
    )
    seg = kept.dataset.load_case("c")[1][...]
    theirs = transforms(segmentation=torch.from_numpy(seg.astype(np.int16)))["segmentation"]
    assert torch.equal(batch["target"], torch.stack([theirs, theirs]))
    loaded = next(nnUNetDataLoader(kept.dataset, 2, PATCH, PATCH, manager, transforms=transforms))
    assert batch["target"].dtype == theirs.dtype == loaded["target"].dtype
    assert batch["target"].shape == loaded["target"].shape
    assert batch["keys"] == list(loaded["keys"])
    wanted = [np.isin(seg[0], labels) for labels in ([1, 2], [2], *([[3]] if ignore else []))]
    assert np.array_equal(batch["target"][0], np.stack(wanted) if regions else np.maximum(seg, 0))


@pytest.mark.parametrize("recipe", [PLAIN, CopyRecipe(8, intensity=False)])
def test_target_and_image_lie_the_same_way(tmp_path, recipe) -> None:
    loader = drawing(tmp_path, recipe, (13, 40, 33), oversample_foreground=0.8)
    for batch in islice(loader, 12):
        bright = batch["data"]._image[:, 0]
        assert bright.shape == batch["target"][:, 0].shape == (2, *PATCH)
        for image, target in zip(bright, batch["target"][:, 0], strict=True):
            if bool((target == 2).any()):  # two steps of 3 above noise of 0.1
                assert float(image[target == 2].min()) > float(image[target == 0].max())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_blocks_hold_foreground_as_often_as_asked(tmp_path, share) -> None:
    loader = drawing(tmp_path, CopyRecipe(3, intensity=False), (33, 64, 96), oversample_foreground=share)
    targets = torch.cat([batch["target"] for batch in islice(loader, 12)])
    holding = (targets > 0).flatten(1).any(1).float().mean()
    assert holding == 1 if share else holding < 0.5
    if share:
        assert {1, 2} <= set(targets.unique().tolist()), "of each class"


def test_blocks_are_everywhere(tmp_path) -> None:
    loader = drawing(tmp_path, PLAIN, (16, 48, 64), oversample_foreground=0.0)
    starts = {loader._draw().start for _ in range(200)}
    assert starts == {(z, y, x) for z in range(3) for y in range(2) for x in range(3)}


def test_with_an_ignored_label_blocks_are_where_something_is_annotated(tmp_path) -> None:
    manager = label_manager(ignore=True)
    loader = drawing(tmp_path, PLAIN, (33, 100, 130), labels=manager, oversample_foreground=0.0)
    properties = loader.dataset.load_case("c")[3]
    corner = np.array([[0, 1, 99, 129]])
    everything = (-1, *manager.all_labels)
    assert everything in properties["class_locations"], "as nnU-Net names it"
    places = {1: np.array([[0, 30, 5, 5]]), everything: corner}
    volume = loader._draw().volume
    for _ in range(20):
        assert loader._start(volume, places) in {(0, 5, 7), (0, 5, 6)}
    loader.oversample_foreground = 1.0
    region = [start * window for start, window in zip(loader._start(volume, places), WINDOW, strict=True)]
    inside = volume.voxels(np.array([[30, 5, 5]]))[0] - region
    assert ((inside >= 0) & (inside < PATCH)).all()
    assert next(loader)["target"].shape == (2, 1, *PATCH)


def test_cases_without_foreground_can_be_drawn(tmp_path) -> None:
    loader = drawing(tmp_path, RECIPE, PATCH, oversample_foreground=1.0)
    volume = loader._draw().volume
    assert loader._voxel(volume, {1: np.zeros((0, 4), int), 2: []}) is None
    assert loader._voxel(volume, {}) is None


def test_one_window_is_computed_once_for_both_passes(tmp_path, monkeypatch) -> None:
    ours = network(window=PATCH)
    windows = ComputedWindows(ours, ours.grid(PATCH), torch.rand(1, 1, *PATCH))
    calls = []
    tokens = type(ours).tokens
    monkeypatch.setattr(type(ours), "tokens", lambda self, window: calls.append(1) or tokens(self, window))
    assert torch.equal(windows.tokens(0), windows.tokens(0))
    assert len(calls) == 1


def test_what_cannot_be_loaded_is_refused_before_training(tmp_path) -> None:
    kept, _ = pair(tmp_path)
    cache, data = kept.cache, kept.dataset
    assert cache is not None
    common = (network(), PATCH, 1)
    with pytest.raises(NeurinoError, match="no case to load"):
        WindowLoader(data, [], *common, RECIPE, None, 0, 0.5, label_manager())
    with pytest.raises(ValueError, match="but a cache of"):
        WindowLoader(data, list(LARGE), *common, CopyRecipe(4, mirroring=False), cache, 0, 0.5, label_manager())
    (cache.folder / "b__copy03.npy").unlink()
    fresh = TokenCache(tmp_path, network(num_classes=3), RECIPE, PATCH, data, {})
    with pytest.raises(NeurinoError, match="b__copy03"):
        WindowLoader(data, list(LARGE), *common, RECIPE, fresh, 0, 0.5, label_manager())


def test_validation_shares_the_cache_of_training(tmp_path) -> None:
    kept, _ = pair(tmp_path, shapes=SHAPES)
    manager = label_manager()
    loader = WindowLoader(kept.dataset, ["a"], network(), PATCH, 1, PLAIN, kept.cache, 0, 0.0, manager)
    other = WindowLoader(kept.dataset, ["a"], network(), PATCH, 1, PLAIN, None, 0, 0.0, manager)
    for one, two in zip(islice(loader, 3), islice(other, 3), strict=True):
        torch.testing.assert_close(all_tokens(one["data"]), all_tokens(two["data"]), atol=2e-3, rtol=1e-3)
