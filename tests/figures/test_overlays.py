"""Projections to scale, in the right place, in colours that can be told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures import CaseView, disagreement, projection_figure, section_figure
from nnunet_neurino.figures.colours import ON_BLACK, ON_WHITE, PREDICTION, TRUTH
from nnunet_neurino.skeleton import skeletonise
from nnunet_neurino.swc import Tree, rasterise


def views(figure: Figure, panel: int = 0) -> dict[str, Axes]:
    labels = {axes.get_label(): axes for axes in figure.axes}
    return {name: labels[f"{panel}:{name}"] for name in ("xy", "zy", "xz")}


def size_in_pixels(axes: Axes) -> tuple[float, float]:
    box = axes.get_window_extent()
    return box.width, box.height


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((12, 40, 48), (2.0, 0.5, 0.5)),
        ((50, 20, 30), (1.0, 1.0, 1.0)),
        ((5, 300, 40), (4.0, 0.3, 0.6)),
        ((9, 9, 9), None),
    ],
)
def test_every_view_is_to_scale(shape: tuple, spacing: tuple | None) -> None:
    image = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    axes = views(projection_figure(CaseView("a", image=image, spacing=spacing)))
    z, y, x = np.array(shape) * np.array(spacing or (1, 1, 1))
    scale = size_in_pixels(axes["xy"])[0] / x
    assert size_in_pixels(axes["xy"]) == pytest.approx((x * scale, y * scale), rel=1e-6)
    assert size_in_pixels(axes["zy"]) == pytest.approx((z * scale, y * scale), rel=1e-6)
    assert size_in_pixels(axes["xz"]) == pytest.approx((x * scale, z * scale), rel=1e-6)
    # Rows of xy and zy, and columns of xy and xz, line up.
    assert axes["xy"].get_window_extent().y0 == pytest.approx(axes["zy"].get_window_extent().y0)
    assert axes["xy"].get_window_extent().x0 == pytest.approx(axes["xz"].get_window_extent().x0)


def test_no_axes_overlap_and_none_leaves_the_page(case: CaseView) -> None:
    figure = projection_figure(case)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    wide, high = figure.get_size_inches() * figure.dpi
    for at, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= wide
        assert box.y1 <= high
        for other in boxes[at + 1 :]:
            assert (
                min(box.x1, other.x1) - max(box.x0, other.x0) < 0.5
                or min(box.y1, other.y1) - max(box.y0, other.y0) < 0.5
            )


def test_texts_do_not_overlap_and_can_be_read(case: CaseView, pixels) -> None:
    figure = projection_figure(case)
    pixels(figure)  # places the texts
    texts = [
        text
        for axes in figure.axes
        for text in [*axes.texts, *(axes.get_legend().get_texts() if axes.get_legend() else [])]
    ]
    assert len(texts) > 10
    assert all(text.get_fontsize() >= 9 for text in texts)
    boxes = [text.get_window_extent() for text in texts]
    for at, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[at + 1 :]), texts[at].get_text()


def test_a_bright_voxel_and_a_tree_node_are_drawn_where_they_are(pixels) -> None:
    shape, spacing, node = (6, 30, 40), (3.0, 0.5, 1.0), (4, 21, 33)
    image = np.zeros(shape, np.uint8)
    image[node] = 255
    tree = Tree.build([[node[2], node[1], node[0]], [node[2] + 0.01, node[1], node[0]]], [-1, 0])
    figure = projection_figure(CaseView("a", image=image, tree=tree, spacing=spacing))
    picture = pixels(figure)
    height = picture.shape[0]
    z, y, x = (at + 0.5 for at in node)
    for name, right, down in (("xy", x / 40, y / 30), ("zy", z / 6, y / 30), ("xz", x / 40, z / 6)):
        box = views(figure, 0)[name].get_window_extent()
        column, row = box.x0 + right * box.width, height - box.y1 + down * box.height
        assert picture[int(row), int(column)].min() > 200, name
        box = views(figure, 1)[name].get_window_extent()
        column, row = box.x0 + right * box.width, height - box.y1 + down * box.height
        assert np.abs(picture[int(row), int(column)] / 255 - to_rgb(TRUTH)).max() < 0.1, name


def test_slices_meet_in_the_middle_of_the_masks(pixels) -> None:
    shape = (10, 20, 30)
    image, mask = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    mask[6:9, 4:7, 20:25] = True
    image[mask] = 50
    image[1, 1, 1] = 255  # in none of the slices
    case = CaseView("a", image=image, truth=mask)
    figure = section_figure(case)
    picture = pixels(figure)
    assert "z 7, y 5, x 22" in figure.axes[0].texts[0].get_text()
    axes = views(figure)["xy"]
    box = axes.get_window_extent()
    inside = picture[picture.shape[0] - int(box.y1) : picture.shape[0] - int(box.y0), int(box.x0) : int(box.x1)]
    row, column = (int((5.5 / 20) * inside.shape[0]), int((22.5 / 30) * inside.shape[1]))
    assert inside[row, column].min() > 200  # stretched to white: the speck does not set the contrast
    with pytest.raises(NeurinoError, match="not in the volume"):
        section_figure(case, through=(10, 0, 0))
    assert "z 5, y 10, x 15" in section_figure(replace(case, truth=None)).axes[0].texts[0].get_text()


def test_panels_say_what_is_known(case: CaseView) -> None:
    def titles(one: CaseView) -> list[str]:
        return [
            axes.texts[0].get_text()
            for axes in projection_figure(one).axes
            if not axes.get_label().startswith(tuple("0123"))
        ]

    assert [title.split(",")[0] for title in titles(case)] == [
        "Raw image",
        "Masks",
        "Traced trees",
        "Cable",
    ]
    assert len(titles(replace(case, prediction=None, truth_tree=None, tree=None))) == 2
    assert len(titles(CaseView("tree only", tree=case.tree))) == 1
    # A true tree stands in for a true mask.
    assert titles(replace(case, truth=None))[-1].startswith("Cable")


def test_disagreement_finds_the_missing_and_the_invented_piece() -> None:
    truth = np.zeros((20, 20, 80), bool)
    truth[9:12, 9:12, 5:75] = True
    prediction = truth.copy()
    prediction[:, :, 30:50] = False
    prediction[2:5, 2:5, 10:30] = True
    truth, prediction = (np.argwhere(skeletonise(mask)) for mask in (truth, prediction))
    found = disagreement(truth, prediction, tolerance=3)
    (missed,), (extra,) = found.missed_boxes, found.extra_boxes
    assert (missed[2].start, missed[2].stop) == pytest.approx((33, 47), abs=2)
    assert (extra[0].start, extra[1].start) == pytest.approx((3, 3), abs=1)
    assert sorted(map(tuple, (*found.agreed, *found.missed))) == sorted(map(tuple, truth))
    same = disagreement(truth, truth)
    assert same.missed_boxes == same.extra_boxes == ()


def test_disagreement_tolerance_is_in_in_plane_voxels() -> None:
    truth = np.array([[2, 2, x] for x in range(40)])
    prediction = truth + np.array([2, 0, 0])  # two slices off
    assert not len(disagreement(truth, prediction, (1, 1, 1), tolerance=2).missed)
    assert len(disagreement(truth, prediction, (1.01, 1, 1), tolerance=2).missed) == 40
    assert len(disagreement(truth, truth[:0]).missed) == 40
    assert not len(disagreement(truth, prediction, (1.0, 0.5, 0.5), tolerance=4).missed)


def test_the_traced_tree_is_compared_where_there_is_one_and_not_the_mask() -> None:
    x = np.arange(5, 56)
    truth = Tree.build(np.stack([x, x * 0 + 9, x * 0 + 5], axis=1), np.arange(51) - 1, radii=1)
    half = Tree.build(truth.xyz[:26], truth.parents[:26], radii=1)
    mask = rasterise(truth, (10, 20, 60))
    case = CaseView("a", prediction=mask, truth=mask, truth_tree=truth, tree=half)
    found = disagreement(*case.cables())
    assert (len(found.missed), len(found.extra), len(found.agreed)) == (22, 0, 29)
    assert not len(disagreement(*replace(case, truth_tree=None).cables()).extra)
    only_masks = replace(case, truth_tree=None, tree=None)
    assert not len(disagreement(*only_masks.cables()).missed)
    assert replace(case, prediction=None, tree=None).cables() is None


def test_trees_far_apart_are_compared_without_a_volume(pixels) -> None:
    far = Tree.build([[0, 0, 0], [3000, 3000, 1500]], [-1, 0])
    assert pixels(projection_figure(CaseView("a", truth_tree=far, tree=far))).any()
    farther = replace(far, xyz=far.xyz * 1e5)
    assert pixels(projection_figure(CaseView("a", tree=farther))).any()
    for tree in (farther, Tree.build([[0, 0, 0], [3e6, 3, 1]], [-1, 0])):
        with pytest.raises(NeurinoError, match="the trees reach to"):
            projection_figure(CaseView("a", truth_tree=far, tree=tree))
    inside = CaseView("a", image=np.ones((4, 5, 6), np.uint8), truth_tree=far, tree=farther)
    assert pixels(projection_figure(inside)).any()


@pytest.mark.parametrize("kind", ["truth", "prediction", "both"])
def test_empty_masks_are_drawn(case: CaseView, kind: str, pixels) -> None:
    empty = np.zeros(case.shape, bool)
    if kind in ("truth", "both"):
        case = replace(case, truth=empty)
    if kind in ("prediction", "both"):
        case = replace(case, prediction=empty)
    assert pixels(projection_figure(case)).any()


def test_constant_and_not_a_number_images_are_drawn(pixels) -> None:
    for image in (np.full((5, 8, 9), 7, np.uint16), np.full((5, 8, 9), np.nan, np.float32)):
        assert pixels(projection_figure(CaseView("flat", image=image))).any()


# Simulated colour vision (Machado, Oliveira and Fernandes 2009, severity 1), on linear RGB.
MACHADO = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, vision: str | None) -> np.ndarray:
    """CIE Lab of a colour as somebody with this vision sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if vision:
        linear = np.clip(np.array(MACHADO[vision]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", [None, *MACHADO])
def test_truth_and_prediction_can_be_told_apart_and_from_the_image(vision: str | None) -> None:
    assert np.linalg.norm(lab(TRUTH, vision) - lab(PREDICTION, vision)) > 40
    for colour in (TRUTH, PREDICTION):
        for grey in ("#000000", "#404040", "#8c8c8c"):  # images behind lines are dimmed to 0.55
            assert np.linalg.norm(lab(colour, vision) - lab(grey, vision)) > 25


def relative_luminance(colour: str) -> float:
    """Lightness of ``#RRGGBB`` as WCAG 2 defines it, 0 (black) to 1 (white)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_lines_contrast_with_their_background() -> None:
    assert all(relative_luminance(colour) > 0.13 for colour in ON_BLACK)  # 3.6 : 1 on black
    assert all(relative_luminance(colour) < 0.45 for colour in ON_WHITE)  # 2.1 : 1 on white


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"truth": np.zeros((3, 3, 3))}, "same voxels"),
        ({"image": np.zeros((3, 3))}, "one stack"),
        ({"spacing": (1.0, 0.0, 1.0)}, "above 0"),
    ],
)
def test_wrong_cases_are_refused_in_one_line(case: CaseView, change: dict, words: str) -> None:
    with pytest.raises(NeurinoError, match=words) as caught:
        replace(case, **change)
    assert "\n" not in str(caught.value)
    assert "a case" in str(caught.value)


def test_nothing_to_draw_and_unknown_scale_are_refused() -> None:
    with pytest.raises(NeurinoError, match="nothing to draw"):
        projection_figure(CaseView("none"))
    tree = Tree.build([[0, 0, 0], [9, 0, 0]], [-1, 0], unit="micrometre")
    with pytest.raises(NeurinoError, match="--spacing"):
        projection_figure(CaseView("um", tree=tree))
