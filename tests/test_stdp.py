"""Spike timing on a copy: a planted pathway, the model untouched, and the rule written out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pel
from method_cases import undrawn
from oracles import wiring as oracle
from pellucid.core.errors import LayerError, MethodError, SettingError
from pellucid.core.progress import Progress
from pellucid.images.datasets import Pictures
from pellucid.inside.wiring.stdp import StdpRule, stdp_probe

PATHS, EACH, COUNT = 4, 6, 200
DRIVES = np.array([1.0, 0.7, 0.4, 0.1])


def planted(seed: int = 0) -> tuple[nn.Module, torch.Tensor, np.ndarray]:
    """Four units of one layer, each wired by weights of one size to inputs of its own.

    Of these a third carry what drives the unit, and fire with it (marked 1), a third its opposite, by negative weights
    (2), and a third are always early, at random strengths (0); −1 is no synapse.
    """
    random = np.random.default_rng(seed)
    inputs = PATHS * 3 * EACH
    W, marks, x = torch.zeros(PATHS, inputs), np.full((PATHS, inputs), -1), np.zeros((COUNT, inputs))
    for j in range(PATHS):
        drive, opposite, noise = (slice((3 * j + k) * EACH, (3 * j + k + 1) * EACH) for k in range(3))
        W[j, drive], W[j, opposite], W[j, noise] = 0.5, -0.5, 0.5
        marks[j, drive], marks[j, opposite], marks[j, noise] = 1, 2, 0
    drives = np.stack([random.permutation(DRIVES) for _ in range(COUNT)])
    for j in range(PATHS):
        drive, opposite, noise = (slice((3 * j + k) * EACH, (3 * j + k + 1) * EACH) for k in range(3))
        jitter = 0.01 * random.standard_normal((2, COUNT, EACH))
        x[:, drive] = np.clip(drives[:, [j]] - 0.03 + jitter[0], 0, 1)
        x[:, opposite] = np.clip(1.1 - drives[:, [j]] + jitter[1], 0, 1)
        x[:, noise] = random.uniform(0.85, 1.0, (COUNT, EACH))
    net = nn.Sequential(nn.Linear(inputs, PATHS), nn.ReLU(), nn.Linear(PATHS, PATHS)).eval()
    with torch.no_grad():
        net[0].weight.copy_(W)
        net[0].bias.zero_()
    return net, torch.from_numpy(x).float(), marks


def auc_of(found, marks: np.ndarray) -> float:
    wired = (marks == 0) | (marks == 1)
    return oracle.auc(found.change[wired].tolist(), (marks[wired] == 1).tolist())


def test_a_planted_pathway_of_equal_weights_is_found_and_only_with_the_window():
    net, x, marks = planted()
    found = stdp_probe(net, "0", x)
    assert auc_of(found, marks) >= 0.95
    assert (found.change[marks < 0] == 0).all()
    literal = stdp_probe(net, "0", x, rule=StdpRule(before=0.0, after=1.0))
    assert auc_of(literal, marks) < 0.5  # what is early always comes before, so it grows most


def test_how_often_a_synapse_grew_is_counted():
    net, x, marks = planted()
    found = stdp_probe(net, "0", x[:1])
    assert set(np.unique(found.causal[~np.isnan(found.causal)])) <= {0.0, 1.0}
    grew = found.change > 0
    assert (found.causal[grew] == 1).all() and (found.causal[found.change < 0] == 0).all()
    silent = found.fired == 0
    assert silent.any() and np.isnan(found.causal[silent]).all()
    whole = stdp_probe(net, "0", x).causal
    assert whole[marks == 1].min() > whole[marks == 0].max()


def test_growth_and_shrinking_follow_the_covariance():
    net, x, marks = planted()
    found = stdp_probe(net, "0", x)
    wired, clear = marks >= 0, marks >= 1
    assert (found.covariance[marks == 1] > 0).all() and (found.covariance[marks == 2] < 0).all()
    assert (np.sign(found.change) == np.sign(found.covariance))[clear].all()
    relative = found.change[wired] / (found.start * (1 - found.start))[wired]
    correlation = np.corrcoef(relative, found.covariance[wired])[0, 1]
    assert found.covariance_agreement == pytest.approx(correlation) and correlation > 0
    fires = [np.where(t == 1, np.nan, 1 - t) for t in map(oracle.latency, net[:2](x).detach().double().numpy())]
    pre = np.stack([1 - oracle.latency(row) for row in x.double().numpy()])
    post, sees = np.array(fires)[:, 0], ~np.isnan(np.array(fires)[:, 0])
    expected = np.cov(pre[sees, 0], post[sees], ddof=0)[0, 1]
    assert found.covariance[0, 0] == pytest.approx(expected, abs=1e-9) and found.fired[0] == sees.sum()


def test_the_rule_written_out_by_hand():
    net, x, _ = planted(1)
    x = x[:12]
    with torch.no_grad():
        post = net[1](net[0](x)).double().numpy()
    pre = [oracle.latency(row) for row in x.double().numpy()]
    times = [oracle.latency(row) for row in post]
    times = [np.where(t == 1, np.nan, t) for t in times]  # what is silent learns nothing
    W = net[0].weight.detach().double().numpy()
    for peak in (0.5, 0.8):
        expected = oracle.stdp(W, pre, times, peak=peak)
        found = stdp_probe(net, "0", x, rule=StdpRule(peak=peak))
        assert np.allclose(found.change, expected, atol=1e-12) and np.abs(expected).max() > 0
    assert not stdp_probe(net, "0", x, rule=StdpRule(peak=1.0)).change.any()


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 0, 1), (1, 2, 2), (1, "same", 2)])
def test_convolutions_learn_from_the_patch_of_the_first_neuron(stride, padding, dilation):
    conv = nn.Conv2d(3, 5, 3, stride, padding, dilation)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    x = torch.randn(6, 3, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        pairs = [(one[None], conv(one[None])) for one in x]
    plain = nn.Conv2d(3, 5, 3, stride, 2 if padding == "same" else padding, dilation).double()
    plain.load_state_dict(conv.state_dict())
    expected = oracle.stdp_conv(plain, pairs, peak=0.5)
    assert np.allclose(stdp_probe(net, "0", x).change, expected, atol=1e-12) and np.abs(expected).max() > 0


def test_groups_other_numbers_of_axes_and_what_stands_behind():
    for conv, shape in ((nn.Conv1d(4, 6, 3, groups=2), (4, 9)), (nn.Conv3d(2, 4, 2, groups=2), (2, 4, 5, 4))):
        norm = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[len(shape) - 1](conv.out_channels)
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.weight.data.uniform_(-1, 1)
        net = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten()).double().eval()
        x = torch.randn(5, *shape, dtype=torch.float64)
        found = stdp_probe(net, "0", x)
        w = found.start.copy()
        for one in x:
            a = net[:3](one[None])[0].detach().numpy()
            t_pre, t_post = oracle.latency(one.numpy()), oracle.latency(a)
            for k in range(len(w)):
                at = np.unravel_index(np.argmin(t_post[k]), t_post[k].shape)
                if t_post[(k, *at)] == 1:
                    continue
                per = w.shape[1]
                low = k // (len(w) // conv.groups) * per
                patch = t_pre[(slice(low, low + per), *[slice(p, p + n) for p, n in zip(at, w.shape[2:], strict=True)])]
                causal = (t_post[(k, *at)] - patch >= -0.05) & (t_post[(k, *at)] - patch <= 0.3)
                w[k] += np.where(causal, 0.004, -0.003) * w[k] * (1 - w[k])
        assert np.allclose(found.change, w - found.start, atol=1e-12)
        blank = np.isnan(found.coupling)
        assert found.coupling.shape == (conv.in_channels, conv.out_channels) and blank.sum() == blank.size / 2
        assert found.image().width > 300


def test_the_model_is_untouched_and_the_copy_is_judged(untouched):
    model = pel.load("builtin:photos")
    x = torch.randn(12, 3, 32, 32)
    with torch.no_grad():
        said = model.module(x).argmax(1)
    labels = [model.label(int(k)) if n < 9 else "nothing" for n, k in enumerate(said)]
    data = Pictures(list(x), [str(n) for n in range(12)], labels, model.preprocess)
    with untouched(model.module), undrawn():
        found = stdp_probe(model, "stage2.1.conv1", data, rule=StdpRule(gain=0.9, loss=0.9), passes=3)
    assert found.accuracy == 1.0 and found.pictures == 12
    with torch.no_grad():
        kept = model.module.stage2[1].conv1.weight
        new = torch.func.functional_call(model.module, {"stage2.1.conv1.weight": found.weight}, x).argmax(1)
    assert torch.equal((found.weight - kept).sign(), (kept.sign() * torch.from_numpy(found.change).sign()).float())
    assert found.accuracy_after == (new == said)[:9].double().mean().item()
    assert found.same_fraction == (new == said).double().mean().item() < 1


def test_a_synapse_that_learns_nothing_keeps_its_weight():
    net, x, _ = planted()
    found = stdp_probe(net, "0", x[:3], rule=StdpRule(gain=0, loss=0))
    assert torch.equal(found.weight, net[0].weight) and found.same_fraction == 1 and np.isnan(found.agreement)


def test_mistakes_are_told_and_it_can_be_stopped(untouched):
    net, x, _ = planted()
    parametrised = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(72, 4)), nn.ReLU()).eval()
    for call, error, words in [
        (lambda: stdp_probe(net, "1", x), LayerError, "name a convolution"),
        (lambda: stdp_probe(net, "9", x), LayerError, "no layer"),
        (lambda: stdp_probe(parametrised, "0", x), (MethodError, LayerError), "computed|name a"),
        (lambda: stdp_probe(net, "0", x, passes=0), SettingError, "at least one"),
        (lambda: StdpRule(peak=0.0), SettingError, "peak"),
    ]:
        with pytest.raises(error, match=words):
            call()
    progress = Progress(on_event=lambda done, total, label: progress.cancel())
    with untouched(net), undrawn(), pytest.raises(pel.core.errors.Cancelled):
        stdp_probe(net, "0", x, progress=progress)


def test_too_many_synapses_are_refused(monkeypatch):
    net, x, _ = planted()
    monkeypatch.setattr("pellucid.inside.wiring.stdp.MOST_SYNAPSES", 100)
    with pytest.raises(SettingError, match="288 synapses"):
        stdp_probe(net, "0", x)


def test_it_shows_itself(tmp_path):
    net, x, _ = planted()
    found = stdp_probe(net, "0", x)
    for name in ("a.png", "a.html", "a.json"):
        assert found.save(tmp_path / name).stat().st_size > 500
    assert "Over 200 pictures" in found.sentence() and "cos" in repr(found) and len(found.edges) == 20
