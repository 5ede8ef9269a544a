"""``neurino view --features`` on a model folder in nnU-Net's form, loaded by nnU-Net itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunet_neurino.cli.main import main
from nnunet_neurino.figures import encoder_features
from nnunet_neurino.files import write_json
from nnunet_neurino.images import write_tiff
from nnunet_neurino.synth import SynthVolume

LEVELS = 3
RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
ARCHITECTURE = {
    "n_stages": LEVELS,
    "features_per_stage": [4, 6, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * LEVELS,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [1] * LEVELS,
    "n_conv_per_stage_decoder": [1] * (LEVELS - 1),
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
CONFIGURATION = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [16, 24, 24],
    "median_image_size_in_voxels": [12.0, 40.0, 48.0],
    "spacing": [2.0, 0.5, 0.5],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": RESAMPLING,
    "resampling_fn_seg_kwargs": {**RESAMPLING, "is_seg": True},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": RESAMPLING,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": ARCHITECTURE,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
    "batch_dice": False,
}
PLANS = {
    "dataset_name": "Dataset001_Test",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [2.0, 0.5, 0.5],
    "original_median_shape_after_transp": [12, 40, 48],
    "image_reader_writer": "Tiff3DIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {"3d_fullres": CONFIGURATION},
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {}},
}
DATASET = {"channel_names": {"0": "light"}, "labels": {"background": 0, "neuron": 1}, "file_ending": ".tif"}


def save_checkpoint(weights: dict, folder: Path) -> None:
    import torch

    checkpoint = {
        "network_weights": weights,
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    (folder / "fold_0").mkdir()
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_best.pth")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as nnU-Net writes it, of a network that was not trained; its own weights are all 0.01."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    folder = tmp_path_factory.mktemp("results") / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    write_json(folder / "plans.json", PLANS)
    write_json(folder / "dataset.json", DATASET)
    classes = {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    network = PlainConvUNet(1, num_classes=2, deep_supervision=False, **{**ARCHITECTURE, **classes})
    save_checkpoint({name: torch.full_like(value, 0.01) for name, value in network.state_dict().items()}, folder)
    return folder


def test_features_of_a_model_folder(model: Path, tmp_path: Path, volume: SynthVolume, monkeypatch) -> None:
    write_tiff(tmp_path / "case.tif", volume.image, volume.spacing)
    drawn: dict[str, list[np.ndarray]] = {}
    from nnunet_neurino.cli import model_features

    def spy(patch, rows, spacing, **options):
        drawn.update(rows)
        assert patch.shape == (1, 16, 48, 48)  # whole patches of the plans around the stack
        assert tuple(spacing) == (2.0, 0.5, 0.5)
        assert patch[0].max() > 3  # around the cell body, in standard deviations
        return original(patch, rows, spacing, **options)

    original = model_features.feature_figure
    monkeypatch.setattr(model_features, "feature_figure", spy)
    target = tmp_path / "page.html"
    command = ["view", "--image", str(tmp_path / "case.tif"), "--features", str(model / "fold_0"), "-o", str(target)]
    assert main(command) == 0
    assert target.read_text().count("<img ") == 2
    trained, fresh = drawn["trained (checkpoint_best.pth)"], drawn["random weights"]
    assert [len(one) for one in trained] == [len(one) for one in fresh] == [4, 6, 8]
    # With equal weights all channels are equal; fresh ones differ.
    assert np.ptp(trained[0], axis=0).max() < 1e-5 < np.ptp(fresh[0], axis=0).max()


def test_large_images_are_cut_to_whole_patches() -> None:
    from nnunet_neurino.cli.model_features import _region

    patch = np.array([32, 64, 64])
    assert _region(patch, np.array([20, 100, 65])).tolist() == [32, 128, 128]
    cut = _region(patch, np.array([500, 2000, 3000]))
    assert np.prod(cut) <= 3_000_000
    assert (cut % patch == 0).all()
    huge = np.array([256, 256, 256])
    assert (_region(huge, huge * 3) == huge).all()


def test_features_with_2d_weights_alone(tmp_path: Path, volume: SynthVolume, monkeypatch) -> None:
    import torch
    from safetensors.torch import save_file
    from timm.models.convnext import ConvNeXt

    from nnunet_neurino.cli import model_features
    from nnunet_neurino.networks import NeurINO
    from nnunet_neurino.transfer import inflate_into, load_2d_weights

    torch.manual_seed(0)
    flat = ConvNeXt(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), num_classes=0)
    save_file(flat.state_dict(), tmp_path / "flat.safetensors")
    arguments = {"size": "atto", "strides": [[1, 1, 1], *[[2, 2, 2]] * 4]}
    name = "nnunet_neurino.networks.NeurINO"
    architecture = {"network_class_name": name, "arch_kwargs": arguments, "_kw_requires_import": []}
    configuration = {**CONFIGURATION, "architecture": architecture}
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    write_json(folder / "plans.json", {**PLANS, "configurations": {"3d_fullres": configuration}})
    write_json(folder / "dataset.json", DATASET)
    network = NeurINO(in_channels=1, num_classes=2, **arguments)
    save_checkpoint(network.state_dict(), folder)
    write_tiff(tmp_path / "case.tif", volume.image, volume.spacing)

    seen: dict[str, list[np.ndarray]] = {}
    monkeypatch.setattr(
        model_features, "feature_figure", lambda patch, rows, *_args, **_options: seen.update(rows, p=patch)
    )
    model_features.model_feature_figure(folder, tmp_path / "case.tif", weights=str(tmp_path / "flat.safetensors"))
    patch = seen.pop("p")
    assert list(seen) == ["trained (checkpoint_best.pth)", "2D weights, untrained", "random weights"]
    expected = {"trained (checkpoint_best.pth)": encoder_features(network, patch)}
    # As a training with default settings begins.
    inflate_into(network, load_2d_weights(tmp_path / "flat.safetensors"), "center_sym")
    expected["2D weights, untrained"] = encoder_features(network, patch)
    for row, maps in expected.items():
        for one, other in zip(seen[row], maps, strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    assert not np.allclose(seen["random weights"][0], expected["2D weights, untrained"][0], atol=1e-3)


def test_what_is_no_model_folder_and_the_wrong_image_give_one_line(
    model: Path, tmp_path: Path, volume: SynthVolume, capsys
) -> None:
    image, two = tmp_path / "case.tif", tmp_path / "two.tif"
    write_tiff(image, volume.image, volume.spacing)
    write_tiff(two, np.stack([volume.image, volume.image]), volume.spacing)
    (tmp_path / "empty" / "fold_0").mkdir(parents=True)
    write_json(tmp_path / "empty" / "plans.json", {})
    for picture, folder, words in (
        (image, tmp_path, "with plans.json"),
        (image, tmp_path / "empty", "no fold with a checkpoint"),
        (two, model, "has 2 channels, the model takes 1"),
    ):
        target = tmp_path / "x.html"
        assert main(["view", "--image", str(picture), "--features", str(folder), "-o", str(target)]) == 1
        error = capsys.readouterr().err.strip()
        assert words in error
        assert "\n" not in error
        assert not target.exists()
