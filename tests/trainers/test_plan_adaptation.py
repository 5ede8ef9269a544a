"""Plans are rewritten so that nnU-Net, reading them, trains and predicts with a NeurINO that fits data and memory."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from nnunet_plans import DATASET_JSON, plans
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers import plan_adaptation
from nnunet_neurino.trainers.families import Family, families
from nnunet_neurino.trainers.families.mednext import MedNeXtSettings
from nnunet_neurino.trainers.families.neurino import PAPER, NeurINOSettings
from nnunet_neurino.trainers.memory import training_memory
from nnunet_neurino.trainers.plan_adaptation import adapt_plans

NEURINO = families()["nnUNetTrainerNeurINO"]
MEDNEXT = families()["nnUNetTrainerMedNeXt"]
TINY = NeurINOSettings()
ATTO = NeurINOSettings(size="atto")


def adapted(
    before: dict[str, Any], settings: Any = TINY, name: str = "3d_fullres", family: Family = NEURINO
) -> dict[str, Any]:
    """The configuration after adaptation, read as nnU-Net reads it."""
    adapt_plans(before, name, DATASET_JSON, family, settings)
    return PlansManager(before).get_configuration(name).configuration


def strides_of(configuration: dict[str, Any]) -> list[list[int]]:
    return configuration["architecture"]["arch_kwargs"]["strides"]


def quick_memory(network: str, kwargs: dict[str, Any], patch: tuple[int, ...], batch: int, *_: Any, **__: Any) -> float:
    """GiB in proportion to the voxels of a batch: a count for each of hundreds of plans would take minutes."""
    return 0.75 + batch * math.prod(patch) / 2**17


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which it does not matter what fits into the memory."""
    monkeypatch.setattr(plan_adaptation, "training_memory", quick_memory)


@pytest.mark.usefixtures("quick")
def test_isotropic_plans_halve_every_axis_and_have_five_targets() -> None:
    strides = strides_of(adapted(plans()))
    assert strides == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 1]]


@pytest.mark.usefixtures("quick")
def test_where_nnunet_does_not_pool_an_axis_neither_do_we() -> None:
    # nnU-Net's own plan for 20 slices at 1 x 0.3 x 0.3.
    theirs = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    configuration = adapted(plans((20, 96, 96), (1.0, 0.3, 0.3), theirs))
    assert strides_of(configuration)[1:5] == [[1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
    assert configuration["patch_size"] == [20, 96, 96], "no slice of padding is needed"


@pytest.mark.usefixtures("quick")
def test_kernels_have_no_depth_while_slices_are_far_apart() -> None:
    configuration = adapted(plans((16, 128, 128), (5.0, 0.5, 0.5), ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))))
    # Spacing z against y at the four stages: 5, 2.5, 2.5 (both halved), 1.25.
    assert configuration["architecture"]["arch_kwargs"]["kernel_depth"] == [1, 1, 1, 3]


@pytest.mark.usefixtures("quick")
def test_plans_without_usable_strides_go_by_the_spacing() -> None:
    # A transformer's plans: one stride of 8.
    theirs = ((8, 8, 8),)
    configuration = adapted(plans((32, 128, 128), (1.0, 0.25, 0.25), theirs, network="some.Primus"))
    assert strides_of(configuration)[1:5] == [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]


@pytest.mark.usefixtures("quick")
def test_levels_that_the_plan_lacks_halve_what_is_left() -> None:
    configuration = adapted(plans((32, 32, 32), strides=((1, 1, 1), *[(2, 2, 2)] * 3)))
    assert strides_of(configuration)[4] == [2, 2, 2]  # 4 -> 2, as published at 32^3
    configuration = adapted(plans((8, 96, 96), strides=((1, 1, 1), (2, 2, 2))))
    assert strides_of(configuration)[1:5] == [[2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert configuration["patch_size"] == [8, 96, 96]


@pytest.mark.usefixtures("quick")
def test_a_stem_of_stride_four_makes_one_level_more() -> None:
    configuration = adapted(plans(), replace(TINY, stem_stride=4))
    assert strides_of(configuration) == [[1, 1, 1]] + [[2, 2, 2]] * 5
    assert all(edge % 32 == 0 for edge in configuration["patch_size"])


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    patch=st.tuples(*[st.integers(4, 200)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 8.0)] * 3),
    pooled=st.lists(st.tuples(*[st.sampled_from((1, 2))] * 3), max_size=6),
    batch=st.integers(2, 30),
    memory=st.floats(3.0, 40.0),
    stem=st.sampled_from((2, 4)),
    network=st.sampled_from(("neurino", "mednext")),
)
@mock.patch.object(plan_adaptation, "training_memory", quick_memory)
def test_any_plan_becomes_one_that_nnunet_can_train(
    patch: tuple[int, ...],
    spacing: tuple[float, ...],
    pooled: list[tuple[int, ...]],
    batch: int,
    memory: float,
    stem: int,
    network: str,
) -> None:
    family, settings = {
        "neurino": (NEURINO, NeurINOSettings(memory=memory, stem_stride=stem, size="atto")),
        "mednext": (MEDNEXT, MedNeXtSettings(memory=memory, size="S")),
    }[network]
    made = plans(patch, spacing, ((1, 1, 1), *pooled), batch)
    configuration = adapted(made, settings, family=family)
    strides = strides_of(configuration)
    divisor = [math.prod(row[axis] for row in strides) for axis in range(3)]
    assert strides[0] == [1, 1, 1]
    assert len(strides) == 6, "five heads, five targets"
    assert all(edge % d == 0 and edge >= d for edge, d in zip(configuration["patch_size"], divisor, strict=True))
    assert 2 <= configuration["batch_size"] <= batch
    # Never larger than the plan's patch rounded up.
    assert all(e <= -(-p // d) * d for e, p, d in zip(configuration["patch_size"], patch, divisor, strict=True))
    # A file and back, and once more: nothing changes.
    again = json.loads(json.dumps(made))
    assert again == made
    adapt_plans(again, "3d_fullres", DATASET_JSON, family, settings)
    assert again == made
    # The same plans with the plans of another run: deterministic.
    other = plans(patch, spacing, ((1, 1, 1), *pooled), batch)
    adapt_plans(other, "3d_fullres", DATASET_JSON, family, settings)
    assert other == made


def memory_of(configuration: dict[str, Any]) -> float:
    architecture = configuration["architecture"]
    return training_memory(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        tuple(configuration["patch_size"]),
        configuration["batch_size"],
        1,
        2,
        tasl=True,
    )


@pytest.mark.parametrize(("size", "memory"), [("tiny", 6.0), ("tiny", 24.0), ("base", 12.0), ("base", 80.0)])
def test_patch_and_batch_fit_the_memory_and_use_it(size: str, memory: float) -> None:
    settings = NeurINOSettings(size=size, memory=memory)
    configuration = adapted(plans((192, 192, 192), batch_size=2), settings)
    assert memory_of(configuration) <= memory
    patch = configuration["patch_size"]
    if patch != [192, 192, 192]:
        larger = [edge + 16 for edge in patch]
        assert memory_of({**configuration, "patch_size": larger}) > memory, "memory was left unused"


def test_the_batch_shrinks_before_the_patch() -> None:
    configuration = adapted(plans((64, 64, 64), batch_size=40), replace(TINY, memory=12.0))
    assert configuration["patch_size"] == [64, 64, 64]
    assert 2 < configuration["batch_size"] < 40


def test_given_patch_and_batch_are_taken_whatever_the_memory() -> None:
    settings = replace(TINY, patch_size=(100, 128, 128), batch_size=9, memory=2.0)
    configuration = adapted(plans(), settings)
    assert (configuration["patch_size"], configuration["batch_size"]) == ([112, 128, 128], 9)


def test_plans_made_for_this_network_keep_their_patch_and_batch() -> None:
    made = plans()
    adapt_plans(made, "3d_fullres", DATASET_JSON, NEURINO, TINY)
    made["configurations"]["3d_fullres"].update(batch_size=16, patch_size=[64, 160, 160])
    configuration = adapted(made)
    assert (configuration["patch_size"], configuration["batch_size"]) == ([64, 160, 160], 16)
    # Another network is not what the plan's author reckoned with.
    assert memory_of(adapted(made, replace(TINY, size="large"))) <= TINY.memory


@pytest.mark.usefixtures("quick")
def test_only_what_the_network_needs_changes() -> None:
    before = plans()
    after = copy.deepcopy(before)
    adapt_plans(after, "3d_fullres", DATASET_JSON, NEURINO, TINY)
    fullres, original = after["configurations"].pop("3d_fullres"), before["configurations"].pop("3d_fullres")
    assert after == before
    changed = {key for key in fullres if fullres[key] != original[key]}
    assert changed <= {"architecture", "patch_size", "batch_size"}


@pytest.mark.usefixtures("quick")
def test_a_cascade_gets_a_channel_for_each_label() -> None:
    made = plans(
        (64, 64, 64),
        **{
            "3d_lowres": {
                "inherits_from": "3d_fullres",
                "spacing": [2.0, 2.0, 2.0],
                "next_stage": "3d_cascade_fullres",
            },
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    )
    dataset = {**DATASET_JSON, "labels": {"background": 0, "axon": 1, "dendrite": 2, "soma": 3}}
    for name, channels in (("3d_lowres", 1), ("3d_cascade_fullres", 4)):
        adapt_plans(made, name, dataset, NEURINO, ATTO)
        manager = PlansManager(made)
        configuration = manager.get_configuration(name)
        assert determine_num_input_channels(manager, configuration, dataset) == channels
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            channels,
            4,
            deep_supervision=True,
        )
        with torch.no_grad():
            outputs = network.eval()(torch.zeros(1, channels, 16, 16, 16))
        # nnU-Net makes one target for each row of strides but the last.
        assert len(outputs) == len(configuration.pool_op_kernel_sizes) - 1
        assert outputs[0].shape == (1, 4, 16, 16, 16)
    assert made["configurations"]["3d_lowres"]["spacing"] == [2.0, 2.0, 2.0]


def test_two_dimensions_and_unknown_configurations_are_refused_in_one_line() -> None:
    flat = plans(**{"2d": {"inherits_from": "3d_fullres", "patch_size": [256, 256]}})
    with pytest.raises(NeurinoError, match="configuration 2d is 2D; NeurINO is 3D: train 3d_fullres"):
        adapted(flat, name="2d")
    with pytest.raises(NeurinoError, match="no configuration '3d_lowres'; there are 3d_fullres, 2d"):
        adapted(flat, name="3d_lowres")


@pytest.mark.usefixtures("quick")
def test_triplane_needs_voxels_that_are_alike() -> None:
    triplane = replace(TINY, inflation="triplane")
    assert adapted(plans(), triplane)["architecture"]["arch_kwargs"]["kernel_depth"] == [7, 7, 7, 7]
    # A flat stack of cubic voxels, which nnU-Net halves less often along z.
    flat = adapted(plans((20, 64, 64), strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2))), triplane)
    assert flat["architecture"]["arch_kwargs"]["strides"] == [[1, 1, 1], *[[2, 2, 2]] * 4, [1, 1, 1]]
    assert flat["patch_size"] == [32, 64, 64]
    with pytest.raises(NeurinoError, match="treats all axes alike"):
        adapted(plans((20, 96, 96), (1.0, 0.3, 0.3), ((1, 1, 1), (1, 2, 2), (2, 2, 2))), triplane)


def test_presets_take_their_strides_as_published_whatever_patch_and_spacing() -> None:
    paper = NeurINOSettings(**PAPER, stem_stride=4)
    for made in (plans(), plans((20, 96, 96), (1.0, 0.3, 0.3), ((1, 1, 1), (1, 2, 2), (2, 2, 2)))):
        configuration = adapted(made, paper)
        # A patch of 32 voxels ends at one voxel behind the 4x stem; before, the last halving was left out.
        assert strides_of(configuration) == [[1, 1, 1], *[[2, 2, 2]] * 5]
        assert configuration["architecture"]["arch_kwargs"]["kernel_depth"] == [3, 3, 3, 3]
        assert configuration["patch_size"] == [32, 32, 32]
    architecture = configuration["architecture"]
    with torch.device("meta"):
        network = get_network_from_plans(
            architecture["network_class_name"], architecture["arch_kwargs"], [], 1, 2, allow_init=False
        )
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(39.22e6, abs=5e3)
