"""Occlusion by windows, regions and pairs: laws, tables, disagreement, refusals."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pellucid as pel
from method_cases import COLOURS, Counted, check, close, heat, outcome, plain, pooled, random_input
from pellucid.core.errors import MethodError, SettingError
from pellucid.methods.occlusion import windows_of
from pellucid.methods.run import Outcome

AXES = [1, 2, 3]


class Linear(nn.Module):
    """`f_1(x) = Σ w ⊙ x`, f_0 = 0."""

    w: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("w", random_input(*shape, seed=4))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


def rows(found: Outcome, name: str, image: int = 0) -> list[dict[str, Any]]:
    (table,) = [t for t in found.tables[image] if t.name == name]
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize("axes", AXES)
def test_disjoint_windows_of_a_linear_network_sum_to_the_score(axes: int):
    """Each window's drop is its part of the sum, and the parts add up to f(x) − f(0)."""
    net, x = Linear(3, *[8] * axes), random_input(2, 3, *[8] * axes)
    found = heat(net, x, "occlusion", window_px=4, stride_px=4, fill="zero")
    close(found.flatten(1).sum(1) / 4**axes, net(x)[:, 1], 1e-12)
    close(found[(slice(None), *[0] * axes)], (net.w * x)[(..., *[slice(0, 4)] * axes)].flatten(1).sum(1), 1e-12)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("method", ["occlusion", "region_occlusion"])
def test_a_batch_is_its_images(axes: int, method: str):
    words = {"window_px": 3} if method == "occlusion" else {"regions": "grid:4"}
    net, x = plain(axes), random_input(3, 3, *[8] * axes)
    together = heat(net, x, method, fill="zero", **words)
    alone = torch.cat([heat(net, one[None], method, fill="zero", **words) for one in x])
    close(together, alone, 1e-11)


def test_plans_agree():
    net, x = pooled(), random_input(2, 3, 24, 24)
    maps = [
        heat(net, x, "occlusion", fill="zero", window_px=5, stride_px=2, plan=p)
        for p in ("auto", "incremental", "full")
    ]
    close(maps[0], maps[2], 1e-11)
    close(maps[1], maps[2], 1e-11)


def test_only_windows_are_asked():
    model = Counted(pooled())
    outcome(model, random_input(1, 3, 8, 8), "occlusion", window_px=4, stride_px=2, fill="zero", plan="full")
    assert sum(model.sizes) == 1 + 9 + 1, "the recording, nine windows, one try of the plain forward"


def test_windows_cover_every_pixel_and_no_more_than_once_too_often():
    boxes = windows_of((10, 7), "4x3", 2)
    assert boxes[0] == ((0, 4), (0, 3)) and boxes[-1] == ((6, 10), (4, 7))
    assert len(boxes) == 4 * 3
    covered = torch.zeros(11, 9)
    for (a, b), (c, d) in windows_of((11, 9), [4, 3], [3, 2]):
        covered[a:b, c:d] += 1
    assert covered.min() >= 1
    assert windows_of((224, 224), 0, 0)[1] == ((0, 16), (8, 24))
    assert len(windows_of((224, 224), 16, 8)) == 729


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"window_px": 9}, "use at most 8"),
        ({"window_px": 3, "stride_px": 4}, "leaves pixels between windows"),
        ({"window_px": -1}, "whole number from 1"),
        ({"window_px": 2.5}, "whole number from 1"),
        ({"window_px": "3x3x3"}, "one for each of 2 axes"),
        ({"window_px": "0x3"}, "whole number from 1"),
        ({"window_px": "wide"}, "whole number from 1"),
        ({"stride_px": None}, "whole number from 1"),
        ({"fill": "gray"}, "grey"),
        ({"fill": ""}, "fill"),
        ({"plan": "quick"}, "plan"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_refusals(words: dict[str, Any], said: str):
    with pytest.raises(SettingError, match=said):
        heat(pooled(), random_input(1, 3, 8, 8), "occlusion", **{"fill": "zero", **words})


def test_a_stride_of_zero_is_half_the_window():
    net, x = pooled(), random_input(1, 3, 12, 12)
    close(
        heat(net, x, "occlusion", fill="zero", window_px=4, stride_px=0),
        heat(net, x, "occlusion", fill="zero", window_px=4, stride_px=2),
        1e-12,
    )


def test_scores_that_are_not_numbers_are_told():
    """The score is one over the first pixel, which the paint makes zero."""
    target = pel.custom(lambda y: 1 / y[:, 1])
    net = Linear(3, 8, 8)
    net.w.zero_()[:, 0, 0] = 1
    with pytest.raises(MethodError, match="1 of 16 scores are not numbers"):
        heat(net, random_input(1, 3, 8, 8), "occlusion", fill="zero", window_px=2, stride_px=2, targets=target)


def test_fills_that_disagree_are_told_and_kept():
    net, x = pooled(), random_input(2, 3, 16, 16)
    fills = ("black", "white", "noise")
    found = outcome(net, x, "occlusion", fill="+".join(fills), window_px=4, preprocess=COLOURS)
    single = [heat(net, x, "occlusion", fill=f, window_px=4, preprocess=COLOURS) for f in fills]
    close(found.attribution, torch.stack(single).mean(0), 1e-12)
    for name, expected in zip(fills, single, strict=True):
        close(found.extra_maps[f"fill {name}"], expected, 1e-12)
    spread = (torch.stack(single).amax(0) - torch.stack(single).amin(0)) / 2
    close(found.extra_maps["disagreement"], spread, 1e-12)
    share = float(spread[1].sum() / found.attribution[1].abs().sum())
    assert check(found, "disagreement between fills", 1) == pytest.approx(share)
    assert "disagreement" not in outcome(net, x, "occlusion", fill="zero").extra_maps


def test_regions_their_pairs_and_the_curve():
    net, x = pooled(), random_input(2, 3, 8, 8)
    labels = torch.arange(4).view(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)
    found = outcome(net, x, "region_occlusion", regions=labels, fill="zero", pairs=4)
    score = net(x)[:, 1].detach()

    def drop(image: int, *hidden: int) -> float:
        edited = x[image : image + 1].clone()
        for region in hidden:
            edited[:, :, labels == region] = 0
        return float(score[image] - net(edited)[0, 1])

    for image in range(2):
        for row in rows(found, "regions", image):
            assert row["mean"] == pytest.approx(drop(image, row["region"]), abs=1e-12)
            assert row["size px"] == 16
            assert float(found.attribution[image][labels == row["region"]][0]) == pytest.approx(row["mean"])
        pairs = rows(found, "pairs", image)
        assert len(pairs) == 6
        for row in pairs:
            a, b = row["region a"], row["region b"]
            assert row["together"] == pytest.approx(drop(image, a, b), abs=1e-12)
            assert row["interaction"] == pytest.approx(drop(image, a, b) - drop(image, a) - drop(image, b), abs=1e-12)
        order = [row["region"] for row in rows(found, "regions", image)]
        for row in rows(found, "covered", image):
            gone = order[: row["regions covered"]]
            assert row["score zero"] == pytest.approx(float(score[image]) - drop(image, *gone), abs=1e-12)


def test_a_linear_network_has_no_interaction():
    net, x = Linear(3, 8, 8), random_input(1, 3, 8, 8)
    found = outcome(net, x, "region_occlusion", regions="grid:4", fill="zero", pairs=4)
    assert max(abs(row["interaction"]) for row in rows(found, "pairs")) < 1e-12


def test_pixels_of_no_region_are_left_alone():
    labels = torch.full((8, 8), -1)
    labels[:2, :2], labels[5:, 5:] = 0, 1
    found = heat(pooled(), random_input(1, 3, 8, 8), "region_occlusion", regions=labels, fill="zero")
    assert (found[0][labels == -1] == 0).all() and (found[0][labels >= 0] != 0).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"pairs": 1}, "use 0 for none"),
        ({"pairs": -2}, "use 0 for none"),
        ({"regions": torch.zeros(8, 8, dtype=torch.long), "pairs": 2}, "pairs need two regions"),
        ({"regions": torch.full((8, 8), -1)}, "region"),
        ({"regions": "grid:100"}, "pixels"),
    ],
)
def test_regions_refused(words: dict[str, Any], said: str):
    with pytest.raises(SettingError, match=said):
        heat(pooled(), random_input(1, 3, 8, 8), "region_occlusion", fill="zero", **words)


def test_in_painting_hangs_on_the_mask_and_each_image_gets_its_own():
    net, x = pooled(), random_input(2, 3, 12, 12)
    words = {"fill": "inpaint", "window_px": 4, "preprocess": COLOURS}
    together = heat(net, x, "occlusion", **words)
    close(together, torch.cat([heat(net, one[None], "occlusion", **words) for one in x]), 1e-9)
    full = heat(net, x, "occlusion", plan="full", **words)
    close(together, full, 1e-9)


# --------------------------------------------------------------------------------------------- Score- and Ablation-CAM


def test_ablation_cam_asks_the_head_only():
    model = Counted(pooled())
    found = outcome(model, random_input(2, 3, 8, 8), "ablation_cam", layers="inside.5")
    assert model.sizes == [2]
    assert check(found, "rerun against the network", 1) <= 1e-12


def test_ablation_cam_of_a_linear_head_is_the_share_of_each_channel():
    """`y − y_k = w_k · mean A_k` where the head is an average and a linear layer without bias."""
    net, x = pooled(), random_input(1, 3, 8, 8)
    A = net[:6](x)
    y = net(x)[0, 1]
    w = net[8].weight[1] * A.mean((2, 3)) / y.abs()
    close(heat(net, x, "ablation_cam", layers="5"), (w[..., None, None] * A).sum(1).relu(), 1e-11)


def test_a_negative_score_keeps_the_sign():
    net, x = pooled(), random_input(1, 3, 8, 8)
    plus, minus = pel.logit(1), pel.custom(lambda y: y[:, 1] - 100)
    y = float(net(x)[0, 1].detach())
    ours, theirs = (heat(net, x, "ablation_cam", layers="5", targets=t) for t in (plus, minus))
    close(theirs * abs(y - 100), ours * abs(y), 1e-9)


def test_score_cam_gives_all_to_a_channel_that_alone_raises_the_score():
    net, x = pooled(), random_input(2, 3, 8, 8)
    found = heat(net, x, "score_cam", layers="5", weights="increase")
    soft = heat(net, x, "score_cam", layers="5")
    assert found.shape == soft.shape == (2, 4, 4)
    steep = heat(net, x, "score_cam", layers="5", targets=pel.custom(lambda y: 1e6 * y[:, 1]))
    A = net[:6](x)
    one = [any(torch.allclose(steep[b], A[b, k]) for k in range(A.shape[1])) for b in range(2)]
    assert all(one), "a softmax over far scores is one channel's map"


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("method", ["score_cam", "ablation_cam"])
def test_cams_of_a_batch_are_its_images(axes: int, method: str):
    net, x = pooled(axes), random_input(2, 3, *[8] * axes)
    together = heat(net, x, method)
    close(together, torch.cat([heat(net, one[None], method) for one in x]), 1e-10)
