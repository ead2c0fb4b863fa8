"""The oracles of what is inside a network, held against each other, closed forms and the specification's pilots."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oracles import exemplars, fields, projection, wiring
from oracles.rectifiers import deconvnet

RNG = np.random.default_rng
D = torch.float64


def stirred(*layers):
    """Batch-norms with statistics of their own, all in float64 and evaluation mode."""
    for layer in layers:
        for part in layer.modules():
            if isinstance(part, nn.BatchNorm2d):
                for tensor in (part.weight.data, part.bias.data, part.running_mean):
                    tensor.normal_()
                part.running_var.uniform_(0.5, 2)
        layer.double().eval()
    return list(layers)


class Shortcut(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.main = nn.Sequential(*layers)

    def forward(self, x):
        return F.relu(x + self.main(x))


class Side(nn.Module):
    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class TestFields:
    def net(self):
        torch.manual_seed(0)
        head = [
            nn.Conv2d(2, 3, 3, 2, 1),
            nn.BatchNorm2d(3),
            nn.ReLU6(inplace=True),
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        ]
        return nn.Sequential(*head, nn.Conv2d(3, 4, (3, 5), dilation=2), nn.GELU())

    def test_recursion_and_probe_agree_along_both_axes(self):
        net = self.net()
        assert fields.field(net, "5", 2, (60, 90)) == [fields.recursion(fields.steps_of(net, a)) for a in (0, 1)]

    def test_perturbing_and_differentiating_see_the_same_pixels(self):
        twin = fields.Twin(self.net(), "3")
        moved = fields.support_by_perturbation(twin, (2, 3), 2, (20, 24))
        assert (moved == fields.support_by_gradient(twin, (2, 3), 2, (20, 24))).all()
        spans = [axis.span(i) for axis, i in zip(fields.field(self.net(), "3", 2, (40, 40)), (2, 3), strict=True)]
        assert fields.box(moved) == spans

    def test_a_shortcut_has_the_field_of_its_longer_way_and_gates_are_passed_over(self):
        class Gate(nn.Module):
            def forward(self, x):
                return x * x.mean((2, 3), keepdim=True).sigmoid()

        net = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), Shortcut(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()), Gate())
        assert fields.field(net, "", 1, (40, 40), bypass=["2"]) == [fields.recursion([(3, 2, 1, 1), (3, 1, 1, 1)])] * 2
        with pytest.raises(ValueError, match="border"):
            fields.field(net, "", 1, (40, 40))

    @pytest.mark.parametrize("axes", [1, 3])
    def test_lines_and_volumes(self, axes):
        conv, pool = getattr(nn, f"Conv{axes}d"), getattr(nn, f"MaxPool{axes}d")
        net = nn.Sequential(conv(1, 2, 3, 2, 1), nn.SELU(), pool(3, 2, dilation=2), conv(2, 2, 2))
        assert (
            fields.field(net, "", 1, (45,) * axes)
            == [fields.recursion([(3, 2, 1, 1), (3, 2, 0, 2), (2, 1, 0, 1)])] * axes
        )

    def test_a_pool_over_the_whole_sees_the_whole(self):
        twin = fields.Twin(nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveMaxPool2d(1)), "1")
        assert fields.support_by_gradient(twin, (0, 0), 1, (8, 9)).all()

    def test_the_reference_table(self):
        conv, pool = (3, 1, 1, 1), (2, 2, 0, 1)
        vgg = [step for many in (2, 2, 3, 3, 3) for step in [conv] * many + [pool]]
        alex = [(11, 4, 2, 1), (3, 2, 0, 1), (5, 1, 2, 1), (3, 2, 0, 1), conv, conv, conv, (3, 2, 0, 1)]
        stem, down = [(7, 2, 3, 1), (3, 2, 1, 1)], (3, 2, 1, 1)
        resnet18 = stem + [conv] * 4 + ([down] + [conv] * 3) * 3
        resnet50 = stem + [conv] * 3 + [down] + [conv] * 3 + [down] + [conv] * 5 + [down] + [conv] * 2
        mobile = [down, conv, down, conv, down, conv, conv, down] + [conv] * 6 + [down] + [conv] * 3
        wide = (3, 2, 0, 1)
        squeeze = [wide, wide, conv, conv, wide, conv, conv, wide, conv, conv, conv, conv]
        found = {tuple(map(int, (f.size, f.stride))) for f in map(fields.recursion, (vgg, alex, resnet18, resnet50))}
        assert found == {(212, 32), (195, 32), (435, 32), (427, 32)}
        assert fields.recursion(mobile).size == 491
        assert (fields.recursion(squeeze).size, fields.recursion(squeeze).stride) == (207, 16)

    @pytest.mark.parametrize(("depth", "pilot"), [(5, 1.82), (10, 2.56), (20, 3.70)])
    def test_the_effective_field_of_random_convolutions_is_a_bell_of_the_known_width(self, depth, pilot):
        torch.manual_seed(depth)
        side, heat = 2 * depth + 1, 0
        for _ in range(40):
            convs = [nn.Conv2d(8 if i else 1, 8, 3, padding=1, bias=False) for i in range(depth)]
            net, image = nn.Sequential(*convs), torch.zeros(1, 1, side, side)
            heat = heat + fields.effective_field(net, str(depth - 1), image, 0, (depth, depth), squared=True)
        theory = np.sqrt(2 * depth / 3)
        assert abs(pilot / theory - 1) < 0.02
        assert np.allclose([*fields.moment_sigmas(heat), fields.fitted_sigma(heat)], theory, rtol=0.1)

    def test_the_bell_that_fits_a_bell(self):
        y, x = np.indices((31, 31)) - 15
        heat = 3 * np.exp(-(y**2 + x**2) / (2 * 2.7**2))
        assert fields.fitted_sigma(heat) == pytest.approx(2.7, abs=1e-4)
        assert fields.moment_sigmas(heat) == pytest.approx([2.7, 2.7], abs=1e-3)
        edge = 2.7 * np.sqrt(-2 * np.log(1 - 0.9545))
        assert fields.area(heat, (15, 15)) == (y**2 + x**2 < edge**2).sum()
        assert fields.padding_mass(np.ones((4, 4)), (-1, -1), (9, 9)) == 7 / 16

    def unit(self, bias=None):
        net = nn.Sequential(nn.Conv2d(1, 1, 5, bias=False), nn.ReLU()).double()
        net[0].weight.data = torch.tensor(RNG(3).normal(size=(1, 1, 5, 5)))
        return net, fields.field(net, "1", 1, (20, 20)), net[0].weight.data[0].numpy()

    def test_the_four_matrices_of_one_known_kernel(self):
        net, axes, kernel = self.unit()
        images = torch.tensor(RNG(0).normal(size=(40, 1, 20, 20)))
        active = net(images).detach()
        few, part = images[:2], net(images[:2]).detach()
        correlation = fields.rfm(net, "1", 0, images, axes, "correlation")
        assert np.corrcoef(correlation.ravel(), kernel.ravel())[0, 1] > 0.99
        share = float((part > 0).double().mean())
        assert np.allclose(fields.rfm(net, "1", 0, few, axes, "gradient"), share * np.abs(kernel), atol=1e-12)
        assert fields.rfm(net, "1", 0, few, axes, "contribution").sum() == pytest.approx(float(part.mean()), abs=1e-12)
        assert 0.4 < float((active > 0).double().mean()) < 0.6
        linear = nn.Sequential(net[0])  # without the rectifier every cell is worth x·∂a/∂x
        lost = fields.rfm(linear, "0", 0, few[:1], axes, "occlusion", fill=torch.zeros_like(few))
        assert np.allclose(lost, fields.rfm(linear, "0", 0, few[:1], axes, "contribution"), atol=1e-12)

    def test_whitening_takes_the_smoothness_of_pictures_out(self):
        net, axes, kernel = self.unit()
        noise = torch.tensor(RNG(1).normal(size=(60, 1, 22, 22)))
        smooth = F.avg_pool2d(noise, 3, 1) * 3
        plain, white = (fields.rfm(net, "1", 0, smooth, axes, "correlation", whiten=w).ravel() for w in (False, True))
        found = [np.corrcoef(c, kernel.ravel())[0, 1] for c in (plain, white)]
        assert found[0] < 0.9 < 0.95 < found[1]

    def test_what_one_layer_gets_from_another(self):
        torch.manual_seed(0)
        below, above = stirred(nn.Conv2d(2, 3, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3, bias=False, groups=1)))
        above[1].weight.data[2, 1] = 0
        images = torch.randn(3, 2, 9, 9, dtype=D)
        signed, mass = fields.coupling(below, above, images)
        assert np.allclose(signed.sum(0), above(below(images)).mean((0, 2, 3)).detach())
        assert mass[1, 2] == 0 and (mass >= np.abs(signed) - 1e-15).all()


class TestProjection:
    def parts(self):
        torch.manual_seed(1)
        head = [nn.Conv2d(3, 4, 5, 2, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)]
        turn = [nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.ReLU()]
        sides = [[nn.Conv2d(4, 2, 1), nn.ReLU()], [nn.Conv2d(4, 3, 5, padding=4, dilation=2)]]
        tail = [nn.GELU(), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.Conv2d(5, 3, 2)]
        net = nn.Sequential(*head, Shortcut(*turn), Side(*sides), *tail)
        layers = [*head, projection.Sum((turn, [])), nn.ReLU(), projection.Concat(tuple(sides)), *tail]
        return stirred(net)[0], layers

    def test_walking_down_is_the_gradient_with_rectified_signals(self):
        net, layers = self.parts()
        x = torch.randn(1, 3, 21, 26, dtype=D)
        down, value, place = projection.project(layers, x[0].numpy(), 1, value=1.0)
        assert value == pytest.approx(float(net(x)[0, 1].max().detach()), abs=1e-12)
        mode = deconvnet(net, x, lambda out: out[(0, 1, *place)])
        assert np.allclose(down, mode[0].numpy(), atol=1e-15) and np.abs(down).max() > 0

    def test_laws(self):
        net, layers = self.parts()
        x = RNG(0).normal(size=(3, 33, 34))
        one, _, place = projection.project(layers, x, 0, value=1.0)
        assert np.allclose(projection.project(layers, x, 0, place, value=3.5)[0], 3.5 * one)
        spans = [axis.span(i) for axis, i in zip(fields.field(net, "", 3, (120, 120)), place, strict=True)]
        outside = np.ones(x.shape, bool)
        outside[:, max(0, spans[0][0]) : spans[0][1] + 1, max(0, spans[1][0]) : spans[1][1] + 1] = False
        assert (one[outside] == 0).all() and np.abs(one).max() > 0

    def test_without_rectifiers_it_is_the_gradient_and_of_one_convolution_the_kernel(self):
        layers = stirred(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(2))
        layers += stirred(nn.Flatten(), nn.Linear(12, 4))
        x = torch.randn(1, 2, 12, 13, dtype=D, requires_grad=True)
        (gradient,) = torch.autograd.grad(nn.Sequential(*layers)(x)[0, 2], x)
        down = projection.project(layers, x[0].detach().numpy(), 2, value=1.0)[0]
        assert np.allclose(down, gradient[0], atol=1e-14)
        down, value, (y, c) = projection.project(layers[:1], x[0].detach().numpy(), 1)
        kernel = down[:, y : y + 3, c : c + 3]
        assert np.allclose(kernel, value * layers[0].weight[1].detach())
        assert np.count_nonzero(down) == kernel.size


class TestExemplars:
    def test_equal_values_go_by_image_and_then_by_row(self):
        data = np.zeros((5, 1, 2, 2))
        data[[1, 3], 0, 1, 0], data[3, 0, 1, 1], data[4, 0, 0, 1] = 2, 2, 1
        assert [(f.image, f.place) for f in exemplars.top(data, 0, 3)] == [(1, (1, 0)), (3, (1, 0)), (4, (0, 1))]
        assert [f.image for f in exemplars.bottom(data, 0, 3)] == [0, 2, 4]
        assert [[f.image for f in part] for part in exemplars.strata(data, 0, 2)] == [[0, 2], [4, 1, 3]]
        assert exemplars.stratum_of(data, 0, 2, 3) == 1

    @pytest.mark.parametrize("q", [0, 0.005, 0.3, 0.995, 1])
    def test_quantiles(self, q):
        values = RNG(0).normal(size=(7, 11))
        found = exemplars.quantile(values, q)
        assert found == pytest.approx(np.quantile(values, q))
        assert exemplars.rank_error(values, found, q) <= 1 / values.size
        assert exemplars.share_below(values, found) == pytest.approx(q, abs=1 / values.size)

    def test_only_what_is_in_the_box_counts(self):
        net = stirred(nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2)))[0]
        axes, other = fields.field(net, "", 1, (40, 40)), RNG(1).normal(size=(1, 24, 24))
        picture, place = RNG(0).normal(size=(1, 24, 24)), (1, 0)

        def unit(x):
            return float(net(torch.tensor(x)[None])[(0, 1, *place)].detach())

        spans = exemplars.crop_box(axes, place)
        assert spans[1][0] < 0 and exemplars.still_the_same(unit, picture, spans, other)
        narrow = [spans[0], (spans[1][0], spans[1][1] - 1)]
        assert not all(exemplars.still_the_same(unit, picture, narrow, other * k) for k in (1, 5, -5))
        crop, support = (
            exemplars.crop(picture, spans, grey=9),
            fields.support_by_gradient(fields.Twin(net, ""), place, 1, (24, 24)),
        )
        assert (crop[:, :, : -spans[1][0]] == 9).all()
        assert (crop[:, :, -spans[1][0] :] == exemplars.crop_by_support(picture, support)).all()

    def test_cells_drawn_at_their_centres(self):
        cells = RNG(0).normal(size=(4, 5))
        axes = [fields.Axis(7, 3, 1.0), fields.Axis(7, 2, 0.5)]  # start = (stride − 1)/2: torch's own corners
        torch_way = F.interpolate(torch.tensor(cells)[None, None], (12, 10), mode="bilinear")[0, 0]
        assert np.allclose(exemplars.at_centres(cells, axes, (12, 10)), torch_way)

    def test_the_mask_is_bright_its_rim_yellow_the_rest_dim(self):
        mask = np.zeros((5, 5), bool)
        mask[2, 2] = True
        shown = exemplars.show_mask(np.ones((3, 5, 5)), mask)
        assert (shown[:, 2, 2] == 1).all() and (shown[:, 1, 1] == (1, 1, 0)).all() and (shown[:, 0, 0] == 0.5).all()


class TestWiring:
    def net(self):
        torch.manual_seed(0)
        low = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AvgPool2d(2)]
        high = [nn.Conv2d(4, 5, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(45, 6), nn.ReLU(), nn.Linear(6, 3)]
        return stirred(nn.Sequential(*low, *high))[0], *torch.randn(2, 1, 3, 15, 15, dtype=D)

    def test_full_gradient_adds_up_and_the_norms_biases_belong_to_it(self):
        net, x, _ = self.net()
        net[3] = nn.MaxPool2d(2)
        parts, _ = wiring.full_gradient(net, x, 1)
        value = float(net(x)[0, 1].detach())
        assert list(parts) == ["input", "0", "1", "4", "7", "9"] and sum(parts.values()) == pytest.approx(
            value, abs=1e-12
        )
        assert abs(sum(wiring.full_gradient(net, x, 1, forget_norms=True)[0].values()) - value) > 1e-3
        zero = net[1](torch.zeros(1, 4, 1, 1, dtype=D)).flatten().detach()
        assert np.allclose(wiring.implicit_bias(net[1]), zero)

    def test_norms_between_channels(self):
        grouped = nn.Conv2d(4, 6, 3, groups=2)
        whole = nn.Conv2d(4, 6, 3)
        whole.weight.data.zero_()
        for o in range(6):
            whole.weight.data[o, o // 3 * 2 : o // 3 * 2 + 2] = grouped.weight.data[o]
        assert np.allclose(wiring.norm_matrix(grouped), wiring.norm_matrix(whole))
        assert np.allclose(wiring.norm_matrix(whole), whole.weight.detach().flatten(2).norm(dim=2).T)

    def test_visual_backprop_of_single_pixels_is_the_product_of_the_means(self):
        torch.manual_seed(0)
        net, x = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU()), torch.randn(1, 2, 5, 6)
        product = net[:2](x).mean(1) * net(x).mean(1)
        assert np.allclose(wiring.visual_backprop(net, x), product[0].detach(), atol=1e-6)
        strided = nn.Conv2d(1, 1, (3, 2), stride=2, padding=1)
        ones = F.conv_transpose2d(
            torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 2), stride=2, padding=1, output_padding=(1, 0)
        )
        assert np.allclose(wiring.ones_back(torch.ones(1, 1, 4, 4), strided, ones.shape[2:]), ones)

    def test_ablation_of_a_linear_layer(self):
        below, head = nn.Conv2d(1, 3, 3), nn.Linear(3, 2)
        net, images = nn.Sequential(below, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), torch.randn(4, 1, 8, 8)
        found = wiring.ablation_matrix(net, "", "0", images)
        assert np.allclose(found, (below(images).mean((0, 2, 3))[:, None] * head.weight.T).detach(), atol=1e-6)
        assert np.abs(wiring.ablation_matrix(net, "3", "0", images, fill="mean")).max() < 1e-6

    def test_deeplift_between_layers(self):
        net, x, ref = self.net()
        net[4].weight.data[:, 2] = 0
        found, change = wiring.influence(net, 3, 9, x, ref)
        assert found.shape == (4, 3) and np.abs(found.sum(0) - change).max() < 1e-12 and (found[2] == 0).all()
        with torch.no_grad():
            a, b = ((net[: n + 1](x), net[: n + 1](ref)) for n in (1, 4))
            whole = wiring.multipliers(list(net[2:]), *a)
            assert np.allclose(wiring.multipliers(list(net[5:]), *b) @ wiring.multipliers(list(net[2:5]), *a), whole)
        same = wiring.multipliers(list(net), x, x)  # without a difference: the gradient
        leaf = x.clone().requires_grad_()
        assert np.allclose(same[1], torch.autograd.grad(net(leaf)[0, 1], leaf)[0].flatten())

    def test_the_window_finds_the_planted_inputs_and_the_literal_rule_the_early_noise(self):
        draw, pre, post = RNG(0), [], []
        for _ in range(100):
            fires = draw.uniform(0.4, 0.9)
            pre.append(np.concatenate([fires + draw.normal(size=6) * 0.02, draw.uniform(0, 0.1, 12)]))
            post.append(np.array([fires]))
        planted, equal = [True] * 6 + [False] * 12, np.ones((1, 18))
        scores = {r: wiring.stdp(equal, pre, post, r, peak=0.5)[0] for r in (wiring.windowed, wiring.literal)}
        assert wiring.auc(scores[wiring.windowed], planted) > 0.95 > 0.5 > wiring.auc(scores[wiring.literal], planted)
        assert not wiring.stdp(equal, pre, post).any()  # |W|/max|W| = 1 never moves: scale equal weights below 1
        assert wiring.auc([1, 2, 2, 3], [False, True, False, True]) == pytest.approx(3.5 / 4)

    def test_a_convolution_over_one_place_learns_as_a_dense_layer(self):
        torch.manual_seed(0)
        layer, xs = nn.Conv2d(2, 3, 4), torch.randn(5, 1, 2, 4, 4).relu()
        pairs = [(x, layer(x)) for x in xs]
        pre = [wiring.latency(x.numpy()).ravel() for x in xs]
        post = [wiring.latency(a[0].detach().double().numpy()).ravel() for _, a in pairs]
        flat = wiring.stdp(layer.weight.detach().double().numpy().reshape(3, -1), pre, post)
        assert np.allclose(wiring.stdp_conv(layer, pairs).reshape(3, -1), flat, atol=1e-9)
