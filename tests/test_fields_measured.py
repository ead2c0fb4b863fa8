"""Effective fields, receptive-field matrices and coupling: their laws, and the slow definitions."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import oracles.fields as oracle
import pellucid as pel
from method_cases import undrawn
from pellucid.core.errors import ImageError, LayerError, SettingError
from pellucid.inside.fields import coupling, effective_field, rfm
from pellucid.inside.fields.patches import patches
from pellucid.inside.fields.spread import fitted_sigma, spread


class Small(nn.Module):
    """Strides, a pool, a branch, in-place rectifiers."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1, bias=bias)
        self.b = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.c = nn.Conv2d(4, 3, 3, stride=2, padding=1, bias=bias)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x), inplace=True)
        y = y + F.relu(self.b(y))
        y = self.relu(self.c(F.max_pool2d(y, 2)))
        return self.head(y.mean((2, 3)))


def small(bias: bool = True) -> Small:
    return Small(bias).double().eval()


def pictures_(count: int = 3, side: int = 26) -> Tensor:
    return torch.randn(count, 2, side, side, dtype=torch.float64)


def axes(net: nn.Module, layer: str) -> list[oracle.Axis]:
    return oracle.field(net, layer, 2, (60, 60))


@pytest.mark.parametrize("signal", ["contribution", "gradient", "correlation"])
def test_the_matrix_is_its_definition(signal: Any) -> None:
    net, x = small(), pictures_()
    found = rfm(net, "relu:1", x, signal=signal, samples=10**6)
    told = oracle.rfm(net, "relu", 1, x, axes(net, "relu"), signal)
    np.testing.assert_allclose(found.channels, told, atol=1e-10)
    np.testing.assert_allclose(found.matrix, told.sum(0), atol=1e-10)


def test_whitened_correlation_is_its_definition() -> None:
    net, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()).double().eval(), pictures_(2, 14)
    found = rfm(net, "1:2", x, signal="correlation", whiten=True)
    told = oracle.rfm(net, "1", 2, x, oracle.field(net, "1", 2, (14, 14)), "correlation", whiten=True)
    np.testing.assert_allclose(found.channels, told, atol=1e-8)


@pytest.mark.parametrize("cell", [1, 3])
def test_occlusion_is_its_definition(cell: int) -> None:
    from pellucid.inside.fields.occluding import blurred

    net, x = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.ReLU(), nn.Conv2d(3, 2, 2)).double().eval(), pictures_(1, 9)
    found = rfm(net, "2:1", x, signal="occlusion", cell_px=cell)
    fill = blurred(x[0], 2.0)[None]
    fields = oracle.field(net, "2", 2, (30, 30))
    if cell == 1:
        told = oracle.rfm(net, "2", 1, x, fields, "occlusion", fill)
        np.testing.assert_allclose(found.matrix, told[0], atol=1e-10)
    assert found.matrix.shape == (5, 5)


def test_occlusion_of_a_linear_unit_is_what_the_paint_takes() -> None:
    """Σ over the field of a − a(cell painted) is what painting all of it takes, whatever the cells."""
    net, x = nn.Conv2d(2, 1, 5, bias=False).double().eval(), pictures_(1, 12)
    sums = []
    for cell in (1, 2, 4):
        from pellucid.inside.fields import occluding

        before = occluding.blurred
        try:
            occluding.blurred = lambda x, sigma: torch.zeros_like(x)
            sums.append(rfm(nn.Sequential(net), "0:0", x, signal="occlusion", cell_px=cell))
        finally:
            occluding.blurred = before
    assert sums[0].matrix.sum() == pytest.approx(sums[0].activation, abs=1e-12)
    assert sums[1].positions == sums[0].positions


def test_contribution_sums_to_the_mean_activation_of_a_bias_free_network() -> None:
    net, x = small(bias=False), pictures_()
    for border in ("exclude", "count"):
        found = rfm(net, "relu:0", x, border=border, samples=10**6)
        assert found.matrix.sum() == pytest.approx(found.activation, abs=1e-12)
    assert found.positions == 3 * 7 * 7
    assert not found.notes


def test_correlation_finds_the_kernel_on_white_noise() -> None:
    """One known kernel: the correlation is proportional to it (r > .999), the gradient is |K| · P(active)."""
    net = nn.Sequential(nn.Conv2d(1, 1, 5, bias=False), nn.ReLU()).eval()
    x = torch.randn(30, 1, 64, 64)
    kernel = net[0].weight[0, 0].detach().numpy()  # pyright: ignore[reportIndexIssue]
    found = rfm(net, "1:0", x, signal="correlation")
    assert np.corrcoef(found.matrix.ravel(), kernel.ravel())[0, 1] > 0.999
    with torch.no_grad():
        active = float((net(x[:2]) > 0).double().mean())
    slope = rfm(net, "1:0", x[:2], signal="gradient", samples=10**6)
    np.testing.assert_allclose(slope.matrix / np.abs(kernel), active, rtol=1e-5)


def test_whitening_undoes_the_colour_of_the_noise() -> None:
    """On smooth pictures the plain correlation is smeared; divided by the covariance it is the kernel again."""
    net = nn.Sequential(nn.Conv2d(1, 1, 5, bias=False), nn.ReLU()).eval()
    x = F.avg_pool2d(torch.randn(30, 1, 42, 42), 3, 1)
    kernel = net[0].weight[0, 0].detach().numpy().ravel()  # pyright: ignore[reportIndexIssue]
    plain, white = (rfm(net, "1:0", x, signal="correlation", whiten=w).matrix.ravel() for w in (False, True))
    assert np.corrcoef(white, kernel)[0, 1] > 0.99
    assert np.corrcoef(plain, kernel)[0, 1] < np.corrcoef(white, kernel)[0, 1] - 0.02


def test_large_patches_are_whitened_by_frequency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.inside.fields.correlation.FEW", 10)
    net = nn.Sequential(nn.Conv2d(1, 1, 11, bias=False)).eval()
    kernel = torch.zeros(11, 11)
    kernel[3:7, 4:9] = torch.randn(4, 5)
    net[0].weight.data[0, 0] = kernel  # pyright: ignore[reportIndexIssue]
    x = F.avg_pool2d(torch.randn(25, 1, 44, 44), 3, 1)
    found, plain = (rfm(net, "0:0", x, signal="correlation", whiten=w) for w in (True, False))
    told, without = (np.corrcoef(f.matrix.ravel(), kernel.flatten())[0, 1] for f in (found, plain))
    assert told > 0.8 and told > without + 0.2
    assert any("by frequency" in note for note in found.notes)


def test_positions_that_share_a_pass_or_are_drawn() -> None:
    net, x = small(), pictures_()
    whole = rfm(net, "a:1", x, signal="gradient", samples=10**6)
    some = rfm(net, "a:1", x, signal="gradient", samples=6)
    again = rfm(net, "a:1", x, signal="gradient", samples=6)
    np.testing.assert_array_equal(some.matrix, again.matrix)
    assert 0 < some.positions < whole.positions
    assert "2 of 9 groups" in some.notes[0]
    np.testing.assert_allclose(whole.matrix, np.abs(net.a.weight[1].detach().numpy()).sum(0), atol=1e-12)


def test_a_matrix_between_two_layers() -> None:
    """A convolution seen from its own input: |K| again, per channel."""
    net, x = small(), pictures_()
    found = rfm(net, "b:2", x, signal="gradient", source="a", samples=10**6)
    assert found.matrix.shape == (3, 3) and found.channels.shape == (4, 3, 3)
    kernel = net.b.weight[2].detach().abs()
    with torch.no_grad():
        active = (net.a(x) > 0).double()
    share = torch.stack(
        [
            active[:, :, 1 + u : 23 + u + 2, 1 + v : 23 + v + 2].mean((0, 2, 3))
            for u in range(-1, 2)
            for v in range(-1, 2)
        ],
        1,
    )
    np.testing.assert_allclose(found.channels, kernel.numpy() * share.view(4, 3, 3).numpy(), rtol=0.03)


def test_padding_mass_is_what_lies_beyond_the_border() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 5, padding=2, bias=False)).double().eval()
    x = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    found = rfm(net, "0:0", x, signal="gradient", samples=10**6)
    heat = np.abs(net[0].weight[0, 0].detach().numpy())  # pyright: ignore[reportIndexIssue]
    told = np.mean([oracle.padding_mass(heat, (i - 2, j - 2), (9, 9)) for i in range(9) for j in range(9)])
    assert found.spread.padding_mass == pytest.approx(told, abs=1e-12)
    counted = rfm(net, "0:0", x, signal="gradient", border="count", samples=10**6)
    assert counted.spread.padding_mass == pytest.approx(told, abs=1e-12)
    assert counted.matrix.sum() == pytest.approx(heat.sum() * (1 - told), abs=1e-12)


def test_a_field_larger_than_the_input_counts_all_positions() -> None:
    net = nn.Sequential(*(nn.Conv2d(1, 1, 5, padding=2) for _ in range(3))).double().eval()
    found = rfm(net, "2:0", torch.randn(2, 1, 8, 8, dtype=torch.float64), samples=10**6)
    assert found.positions == 2 * 64 and "no position's whole field" in found.notes[0]
    assert 0 < found.spread.padding_mass < 1


def test_what_sees_everything_tells_the_mass_outside_its_local_field() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1)
            self.out = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.out(y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True))))

    found = rfm(Squeezed().eval(), "out:0", torch.randn(2, 1, 8, 8), signal="gradient")
    assert found.everywhere.startswith("mean") and found.matrix.shape == (3, 3)
    assert 0 < found.elsewhere_fraction < 0.5
    assert "sees everything" in found.sentence()


def test_the_head_has_one_position() -> None:
    net, x = small(bias=False), pictures_()
    found = rfm(net, "head:2", x, samples=10**6)
    assert found.matrix.shape == (26, 26) and found.positions == 3
    assert found.matrix.sum() == pytest.approx(found.activation, abs=1e-12)


@pytest.mark.parametrize("count, told, fraction", [(5, 1.82, 0.66), (10, 2.56, 0.49), (20, 3.70, 0.36)])
def test_the_field_of_n_convolutions_has_sigma_root_two_thirds_n(count: int, told: float, fraction: float) -> None:
    """Random 3 × 3 kernels: σ of the mean squared gradient is √(2n/3), and 4σ over the field's side falls."""
    total = np.zeros((2 * count + 1,) * 2)
    for _ in range(8):
        net = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(count))).eval()
        x = torch.zeros(1, 16, 2 * count + 3, 2 * count + 3)
        field = effective_field(net, f"{count - 1}:0", x, squared=True).field
        total += field / field.sum()
    width = spread(total, 0.0)
    assert np.mean(width.sigmas_px) == pytest.approx(np.sqrt(2 * count / 3), rel=0.04)
    assert np.mean(width.sigmas_px) == pytest.approx(told, rel=0.04)
    assert width.sigma_px == pytest.approx(told, rel=0.08), "the kernels are not Gaussian, which the fit sees"
    assert width.reach_fraction == pytest.approx(fraction, abs=0.05)


def test_equal_weights_have_exactly_that_sigma() -> None:
    net = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(12))).double().eval()
    for p in net.parameters():
        nn.init.constant_(p, 1 / 9)
    found = effective_field(net, "11:0", torch.randn(1, 1, 51, 51, dtype=torch.float64))
    assert found.spread.sigmas_px == pytest.approx((np.sqrt(8), np.sqrt(8)), abs=1e-9)
    assert found.spread.sigma_px == pytest.approx(np.sqrt(8), rel=0.02)
    assert found.spread.centroid == pytest.approx((12, 12))


@pytest.mark.parametrize("squared", [False, True])
def test_the_effective_field_is_its_definition(squared: bool) -> None:
    net, x = small(), pictures_()
    found = effective_field(net, "relu:1", x, squared=squared)
    told = oracle.effective_field(net, "relu", x, 1, found.position, squared)
    np.testing.assert_allclose(found.heat, told, atol=1e-12)
    inside = np.clip(np.array(found.reached) + np.array([0, 1]), 0, 26)
    assert told[inside[0, 0] : inside[0, 1], inside[1, 0] : inside[1, 1]].sum() == pytest.approx(told.sum())
    assert found.spread.sigma_px == pytest.approx(oracle.fitted_sigma(found.field), rel=1e-3)
    assert found.spread.area_px == oracle.area(found.field, oracle.middle(found.field.shape))


def test_widths_are_their_definitions() -> None:
    heat = np.random.default_rng(0).random((9, 12)) * np.exp(-((np.arange(12) - 4) ** 2) / 9)
    found = spread(heat, 0.0)
    assert found.centroid == pytest.approx(oracle.centroid(heat)) and found.sigmas_px == pytest.approx(
        oracle.moment_sigmas(heat)
    )
    bell = np.exp(-sum((p - 10) ** 2 for p in np.indices((21, 21))) / (2 * 2.5**2))
    assert fitted_sigma(bell, (10, 10)) == pytest.approx(2.5, rel=1e-4)
    none = spread(np.zeros((3, 3)), 0.0)
    assert np.isnan(none.sigma_px) and none.area_px == 0


def test_everything_is_drawn_and_saved(tmp_path: Any) -> None:
    model = pel.load("builtin:photos")
    x = torch.rand(3, 3, 32, 32)
    found = [
        rfm(model, "stage1:3", x, samples=8),
        rfm(model, "stage1:3", x, signal="gradient", samples=8),
        effective_field(model, "stage2:5", samples=4),
        coupling(model, "stage1", "stage2", x, units=[0, 1], samples=6),
    ]
    for one in found:
        assert one.image().width > 100 and "<figure" in one.html()
        for suffix in (".png", ".html", ".json"):
            assert one.save(tmp_path / f"it{suffix}").stat().st_size > 100


def test_sequences_and_volumes() -> None:
    line = nn.Sequential(nn.Conv1d(2, 3, 5, stride=2, bias=False), nn.ReLU()).eval()
    found = rfm(line, "1:1", torch.randn(4, 2, 40), samples=10**6)
    assert found.matrix.shape == (5,) and found.matrix.sum() == pytest.approx(found.activation, rel=1e-5)
    assert found.image().width > 100
    solid = nn.Sequential(nn.Conv3d(1, 2, 3, bias=False)).eval()
    field = effective_field(solid, "0:1", torch.randn(2, 1, 7, 8, 9))
    np.testing.assert_allclose(field.field, solid[0].weight[1, 0].detach().abs(), rtol=1e-5)  # pyright: ignore[reportIndexIssue]
    assert field.image().width > 100


def test_the_network_comes_back_as_it_was(untouched: Any) -> None:
    net, x = small(), pictures_(2, 12)
    with untouched(net), undrawn():
        rfm(net, "c:0", x, samples=4)
        rfm(net, "c:0", x, signal="occlusion", samples=4)
        effective_field(net, "c:0", x)
        coupling(net, "a", "c", x, samples=4)
    with untouched(net), undrawn(), pytest.raises(LayerError):
        rfm(net, "c:9", x)


def test_a_network_without_gradients_of_its_own_is_walked_back() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(1, 1, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return self.a(x)

    net = Hidden().eval()
    found = rfm(net, "a:0", torch.randn(2, 1, 8, 8), signal="gradient")
    np.testing.assert_allclose(found.matrix, net.a.weight[0, 0].detach().abs(), rtol=1e-5)


def test_refusals() -> None:
    net, x = small(), pictures_(2, 12)
    with pytest.raises(SettingError, match="signal"):
        rfm(net, "c:0", x, signal="wishes")
    with pytest.raises(SettingError, match="border"):
        rfm(net, "c:0", x, border="mirror")
    with pytest.raises(SettingError, match="samples=0"):
        rfm(net, "c:0", x, samples=0)
    with pytest.raises(SettingError, match="whiten"):
        rfm(net, "c:0", x, whiten=True)
    with pytest.raises(SettingError, match="occlusion paints"):
        rfm(net, "c:0", x, signal="occlusion", source="a")
    with pytest.raises(LayerError, match="does not come from"):
        rfm(net, "a:0", x, source="c")
    with pytest.raises(LayerError, match="position"):
        effective_field(net, "c:0", x, position=(9, 0))
    with pytest.raises(LayerError, match="unit 7"):
        coupling(net, "a", "c", x, units=[7])
    with pytest.raises(ImageError, match="one size"):
        rfm(net, "head:0", [torch.zeros(2, 12, 12).double(), torch.zeros(2, 14, 14).double()])


def test_pictures_of_several_sizes_count_together() -> None:
    net = small()
    wide, tall = torch.randn(2, 24, 30, dtype=torch.float64), torch.randn(2, 30, 22, dtype=torch.float64)
    both, one, two = (rfm(net, "relu:1", d, samples=10**6) for d in ([wide, tall], wide[None], tall[None]))
    share = one.positions / both.positions
    assert both.positions == one.positions + two.positions and both.pictures == 2
    np.testing.assert_allclose(both.matrix, share * one.matrix + (1 - share) * two.matrix, atol=1e-12)
    fields = [effective_field(net, "b:1", d).field for d in ([wide, tall], wide[None], tall[None])]
    np.testing.assert_allclose(fields[0], (fields[1] + fields[2]) / 2, atol=1e-12)
    heats = [effective_field(net, "b:1", d).heat for d in ([wide, tall], wide[None])]
    np.testing.assert_allclose(heats[0], heats[1], atol=1e-12)
    pairs = [coupling(net, "a", "c", d, samples=10**6) for d in ([wide, tall], wide[None], tall[None])]
    share = pairs[1].positions / pairs[0].positions
    np.testing.assert_allclose(pairs[0].mass, share * pairs[1].mass + (1 - share) * pairs[2].mass, atol=1e-12)


def test_patches_beyond_the_border_are_nothing() -> None:
    x = torch.arange(12.0).view(1, 3, 4) + 1
    found, there = patches(x, [(-1, 2), (1, 1)], (2, 3))
    assert found[0, 0].tolist() == [[0, 0, 0], [3, 4, 0]] and found[1, 0].tolist() == [[6, 7, 8], [10, 11, 12]]
    assert there[0].tolist() == [[False] * 3, [True, True, False]]
