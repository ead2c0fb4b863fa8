"""The oracles of pictures, atlases and maps, held against each other, closed forms and torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oracles import atlas, fields, maps, visualisation

RNG = np.random.default_rng
D = torch.float64


def still(*layers):
    """In float64 and evaluation mode."""
    return [layer.double().eval() for layer in layers]


class TestVisualisation:
    @pytest.mark.parametrize("size", [(6, 8), (7, 9), (6, 9), (5, 8)])
    def test_spectra_of_even_and_odd_sizes(self, size):
        (h, w), draw = size, RNG(0)
        z = draw.normal(size=(h, w // 2 + 1)) + 1j * draw.normal(size=(h, w // 2 + 1))
        grid = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
        assert np.allclose(visualisation.frequencies(h, w), grid)
        scaled = z * np.sqrt(h * w) / np.maximum(grid, 1 / max(h, w)) ** 1.5 / 4
        assert np.allclose(
            visualisation.from_spectrum(z[None], h, w, 1.5)[0], visualisation.inverse_by_sum(scaled, h, w)
        )

    def test_the_first_picture_is_almost_grey(self):
        z = RNG(0).normal(size=(2, 3, 128, 65)) * 0.01
        start = visualisation.from_spectrum(z[0] + 1j * z[1], 128, 128)
        matrix = visualisation.normalised(visualisation.LUCID)
        grey = visualisation.sigmoid(visualisation.correlate(start, matrix))
        assert start.std() == pytest.approx(0.0186, rel=0.15) and 0.48 < grey.min() < grey.max() < 0.52
        assert np.abs(visualisation.LUCID[:, 0] / matrix[:, 0] - 0.4619).max() < 1e-4
        assert np.allclose(visualisation.decorrelate(visualisation.correlate(start, matrix), matrix), start)

    @pytest.mark.parametrize("symmetric", [False, True])
    def test_colours_from_a_covariance(self, symmetric):
        mix = RNG(2).normal(size=(4, 4))
        pictures = np.stack([visualisation.correlate(x, mix) for x in RNG(0).normal(size=(30, 4, 9, 9))])
        cov = visualisation.covariance(pictures)
        flat = pictures.transpose(1, 0, 2, 3).reshape(4, -1)
        assert np.allclose(cov, np.cov(flat, bias=True)) and np.allclose(cov, mix @ mix.T, rtol=0.2, atol=0.5)
        root = visualisation.colour_root(cov, symmetric)
        assert np.allclose(root @ root.T, cov)
        assert np.allclose(np.cov(np.linalg.inv(root) @ flat, bias=True), np.eye(4))
        assert visualisation.normalised(visualisation.colour_root(np.array([[2.0]]))) == pytest.approx(1)

    def test_transforms(self):
        x = RNG(0).random((3, 7, 10))
        torch_way = F.interpolate(torch.tensor(x)[None], (11, 6), mode="bilinear")[0]
        assert np.allclose(visualisation.resize(x, 11, 6), torch_way)
        assert np.allclose(
            visualisation.affine(x[:, :, :7], visualisation.turn(90)), np.rot90(x[:, :, :7], axes=(1, 2))
        )
        back = visualisation.affine(visualisation.affine(x, np.eye(2), (2, -1)), np.eye(2), (-2, 1))
        assert np.allclose(back[:, 2:, :9], x[:, 2:, :9]) and (back[:, :2] == 0.5).all()
        doubled = visualisation.affine(x, visualisation.turn(0, 2.0), outside=None)
        assert np.allclose(doubled[:, 3, 4], (x[:, 3, 4] * 3 + x[:, 3, 5]) / 4)
        framed = visualisation.pad(x, 2)
        assert (framed[:, :2] == 0.5).all() and (visualisation.crop(framed, 2, 2, 7, 10) == x).all()
        assert (visualisation.roll(x, 3, -4) == np.roll(x, (3, -4), (1, 2))).all()
        assert (visualisation.roll(visualisation.roll(x, 3, -4), -3, 4) == x).all()

    def test_objectives(self):
        A = RNG(0).normal(size=(3, 4, 4))
        assert visualisation.channel_mean(A, 1) == pytest.approx(A[1].mean())
        assert visualisation.neuron(A, 2) == A[2, 2, 2]
        assert visualisation.layer_mean(A) == pytest.approx((A**2).mean())
        h, v = np.array([3.0, 4.0]), np.array([0.0, 2.0])
        cell = np.tile(h[:, None, None], (1, 2, 2))
        assert [visualisation.direction(cell, v, p) for p in (0, 2)] == pytest.approx([8, 8 * 0.8**2])
        assert visualisation.direction(-cell, v, 2, (0, 1)) == pytest.approx(-8 * 0.01)
        assert visualisation.diversity(np.stack([A, 2 * A, -A])) == pytest.approx(1)
        one, other = np.zeros((2, 2, 2, 2))
        one[0], other[1] = 1, 1
        assert visualisation.diversity(np.stack([one, other])) == visualisation.diversity(A[None]) == 0
        step = np.array([[[0.0, 1.0], [0.0, 3.0]]])
        assert (visualisation.total_variation(step), visualisation.l1(step, 0)) == (6, 4)
        assert visualisation.l2(step, 0) == pytest.approx(np.sqrt(10))

    @pytest.mark.parametrize("width", [8, 9])
    def test_maco_keeps_the_magnitudes_except_in_columns_that_are_their_own_conjugates(self, width):
        draw = RNG(0)
        phase = draw.normal(size=(3, 7, width // 2 + 1))
        r = visualisation.mean_magnitude(draw.random((5, 3, 7, width)), np.eye(3))
        kept = np.abs(np.fft.rfft2(visualisation.maco_signal(phase, r, width))) / r
        exact = visualisation.exact_columns(width)
        assert exact == ([1, 2, 3] if width == 8 else [1, 2, 3, 4]) and np.abs(kept[:, :, exact] - 1).max() < 1e-12
        angles = visualisation.standard(phase)
        for j in set(range(width // 2 + 1)) - set(exact):
            assert (
                np.allclose(kept[:, :, j], visualisation.column_loss(angles, j))
                and np.abs(kept[:, :, j] - 1).mean() > 0.1
            )
        picture = visualisation.maco(phase, r, visualisation.normalised(visualisation.LUCID), width, -1, 3)
        assert picture.shape == (3, 7, width) and -1 < picture.min() < 1 < picture.max() < 3

    def test_adam_is_torch_s(self):
        target, x = RNG(0).normal(size=(2, 3)), torch.zeros(2, 3, dtype=D, requires_grad=True)
        optimiser = torch.optim.Adam([x], lr=0.05, maximize=True)
        for _ in range(20):
            optimiser.zero_grad()
            (-((x - torch.tensor(target)) ** 4).sum()).backward()
            optimiser.step()
        slow = visualisation.adam(lambda y: -4 * (y - target) ** 3, np.zeros((2, 3)), 20, 0.05)
        assert np.allclose(slow, x.detach(), atol=1e-12)

    @pytest.mark.parametrize("mean", [False, True])
    def test_the_class_image_of_a_linear_score(self, mean):
        w, decay = RNG(0).normal(size=(3, 4, 4)), 0.1
        over = w.size if mean else 1
        found = visualisation.ascend(lambda x: w - 2 * decay * x / over, np.zeros(w.shape), 2000, 0.5 * over)
        assert np.allclose(found, visualisation.class_optimum(w, decay, mean), atol=1e-8)
        assert np.allclose(visualisation.class_optimum(w, decay), w / 0.2)

    def test_deep_dream(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).double()

        def gradient(x):
            leaf = torch.tensor(x)[None].requires_grad_()
            return torch.autograd.grad((net(leaf) ** 2).sum() / 2, leaf)[0][0].numpy()

        picture, sizes = RNG(0).random((3, 20, 28)), visualisation.octave_sizes(20, 28)
        assert sizes == [(7, 10), (10, 14), (14, 20), (20, 28)]
        assert (visualisation.deep_dream(picture, gradient, sizes, steps=0)[-1] == picture).all()
        still, moved = (visualisation.deep_dream(picture, gradient, sizes, steps=n) for n in (0, 10))
        assert all(
            (net(torch.tensor(b)) ** 2).sum() > (net(torch.tensor(a)) ** 2).sum()
            for a, b in zip(still, moved, strict=True)
        )
        alone = visualisation.tiled(gradient, picture, 28, 3, 5)
        rolled = visualisation.roll(gradient(visualisation.roll(picture, 3, 5)), -3, -5)
        assert np.allclose(alone, rolled)


class TestAtlas:
    def test_layout(self):
        points = RNG(0).normal(size=(500, 2)) * (1, 5)
        q = np.percentile(points, [1, 99], axis=0)
        assert np.allclose(atlas.bounds(points), np.stack([q[0] - 0.1 * (q[1] - q[0]), q[1] + 0.1 * (q[1] - q[0])], 1))
        for by in ("data", "bounds"):
            spread = atlas.layout(points, by=by)
            assert spread.min() >= 0 and spread.max() <= 1 and atlas.counts(spread, 7).sum() == 500
        assert atlas.cell_of(np.array([1.0, 0.5]), 4) == (3, 2)

    def test_planted_clusters_have_cells_of_their_own(self):
        draw = RNG(0)
        labels = draw.integers(0, 3, 300)
        points = np.array([[0.1, 0.1], [0.9, 0.3], [0.5, 0.9]])[labels] + 0.01 * draw.normal(size=(300, 2))
        activations = np.eye(3)[labels]
        means = atlas.cell_means(points, activations, 5, more_than=60)
        assert atlas.purity(points, labels, 5) == 1 and sorted(m.argmax() for m in means.values()) == [0, 1, 2]
        assert atlas.cell_labels(points, activations, 5, 60) == {c: m.argmax() for c, m in means.items()}

    def test_directions(self):
        h = RNG(0).normal(size=(200, 4)) + 3
        assert np.allclose(atlas.second_moment(h), h.T @ h / 200)
        assert np.allclose(atlas.whitening(h) @ atlas.second_moment(h), np.eye(4))
        v, s = h[0], atlas.whitening(h)
        assert atlas.cell_objective(v, v) == pytest.approx(v @ v)
        assert atlas.cell_objective(v, v, s, 0) == pytest.approx(v @ s @ v)
        assert atlas.cell_objective(h[1], v, s, 1, to="Sv") == pytest.approx(
            h[1] @ s @ v * max(0.1, visualisation.cosine(h[1], s @ v))
        )

    def dense(self, ceil, include=True):
        torch.manual_seed(0)
        low = [nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=ceil), nn.Conv2d(4, 4, 3, padding=1)]
        high = [nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=ceil), nn.Conv2d(4, 4, (3, 1), 2, (1, 0)), nn.ReLU()]
        return still(*low, *high, nn.AvgPool2d(2, 2, ceil_mode=ceil, count_include_pad=include), nn.Conv2d(4, 3, 2))

    @pytest.mark.parametrize("size", [(83, 90), (75, 87), (100, 101)])
    @pytest.mark.parametrize("ceil", [False, True])
    @torch.no_grad()
    def test_dense_maps_hold_the_usual_cells(self, size, ceil):
        layers, x = self.dense(ceil, include=not ceil), torch.randn(1, 2, *size, dtype=D)
        usual = nn.Sequential(*layers)(x)
        for first, rate in ((0, 32), (4, 8), (6, 4)):
            found, rates = atlas.dense_layers(layers, x, first)
            assert rates == (rate, rate) and found.isfinite().all()
            assert found[:, :, ::rate, ::rate].shape == usual.shape
            assert (found[:, :, ::rate, ::rate] - usual).abs().max() < 1e-12

    @torch.no_grad()
    def test_without_the_rule_for_rounding_up_it_breaks(self):
        layers, x = self.dense(True, include=False)[:6], torch.randn(1, 2, 83, 90, dtype=D)
        layers.append(nn.Conv2d(4, 3, 3, padding=1).double())
        usual, (found, (r, _)) = nn.Sequential(*layers)(x), atlas.dense_layers(layers, x, 2, ceil_rule=False)
        part = found[:, :, ::r, ::r]
        common = usual[:, :, : part.shape[2], : part.shape[3]]
        assert part.shape != usual.shape or (part - common).abs().max() > 1e-2

    @torch.no_grad()
    def test_shifting_and_stitching_gives_the_same_away_from_borders(self):
        net, x = nn.Sequential(*self.dense(False)[:4]), torch.randn(1, 2, 48, 52, dtype=D)
        moved, filled = atlas.shift_and_stitch(net, x, 4)
        holes, _ = atlas.dense_layers(list(net), x, 0)
        axes = [fields.Axis(f.size, 1, f.start) for f in fields.field(net, "", 2, (48, 52))]
        inside = fields.places(axes, holes.shape[2:], (48, 52))
        inside = [q for q in inside if all(axis.span(i)[0] >= i % 4 for axis, i in zip(axes, q, strict=True))]
        assert len(inside) > 1000 and all(filled[q] for q in inside)
        assert max(float((moved[:, :, y, c] - holes[:, :, y, c]).abs().max()) for y, c in inside) < 1e-12
        seen = fields.field(net, "", 2, (48, 52))
        assert atlas.cover(seen, list(np.ndindex(12, 13)), (48, 52)).min() > 0


class TestMaps:
    def test_scaling(self):
        data = RNG(0).normal(size=(6, 2, 4, 4))
        data[:, 1] = 3
        scaled = maps.min_max(data[0])
        assert (scaled[0].min(), scaled[0].max()) == (0, 1) and not scaled[1].any()
        low, high = np.percentile(data[:, 0], [1, 99])
        assert np.allclose(maps.against_data(data[0], data)[0], np.clip((data[0, 0] - low) / (high - low), 0, 1))
        assert not maps.against_data(data[0], data)[1].any()

    def test_numbers_of_maps(self):
        A = RNG(0).normal(size=(3, 4, 5))
        assert np.allclose(maps.energy(A), np.linalg.norm(A, axis=0))
        assert maps.key_point(A) == np.unravel_index(maps.energy(A).argmax(), (4, 5))
        assert np.allclose(maps.region_vector(A, maps.energy(A) > 1), A[:, maps.energy(A) > 1].mean(1))
        assert np.allclose(maps.variances(A), A.var((1, 2)))
        data = np.clip(RNG(0).normal(size=(5, 3, 4, 4)) * 6, 0, 6)
        data[:, 1] = 0
        assert maps.dead(data) == maps.constant(data) == [False, True, False] and maps.sparsity(data[0])[1] == 1
        assert maps.saturated(data, 6) == [(data[:, k] == 6).mean() for k in range(3)]

    def test_columns_are_drawn_where_the_fields_are_centred(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
        x = torch.randn(1, 2, 12, 14)
        layers = [(x[0].numpy(), [fields.Axis(1, 1, 0.0)] * 2)]
        for name, a in (("1", net[:2](x)), ("2", net(x))):
            layers.append((a[0].detach().numpy(), fields.field(net, name, 2, (30, 30))))
        columns = maps.hypercolumn(layers, (12, 14))
        assert columns.shape == (8, 12, 14) and (columns[:2] == x[0].numpy()).all()
        for place in ((0, 0), (5, 6), (11, 13)):
            assert np.allclose(columns[(slice(None), *place)], maps.column_at(layers, place), atol=1e-6)
        drawn = layers[1][1]
        centre = tuple(int(axis.start + 2 * axis.stride) for axis in drawn)
        assert np.allclose(columns[(slice(2, 5), *centre)], layers[1][0][:, 2, 2])
        again, fit = maps.reconstruction(columns, x[0].numpy())
        assert fit == pytest.approx(1) and np.allclose(again, x[0].numpy(), atol=1e-6)
        assert 0 < maps.reconstruction(columns[2:], x[0].numpy())[1] < 1

    def test_a_layer_that_is_averaged_afterwards_has_no_effect(self):
        torch.manual_seed(0)
        low = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
        net, images = (
            nn.Sequential(low, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)),
            torch.randn(3, 1, 9, 9),
        )
        assert maps.layer_effect(net, "0", images).abs().max() < 1e-6
        found, head = maps.layer_effect(net, "0.0", images, channels=[1]), net[3].weight[:, 1]
        before = low[0](images)[:, 1]
        lost = before.relu().mean((1, 2)) - before.mean((1, 2)).relu()
        assert torch.allclose(found, lost[:, None] * head, atol=1e-6)
