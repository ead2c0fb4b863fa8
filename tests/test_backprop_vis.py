"""BackpropVis: the maps are the methods', the shares sum to the score, the carriers are what they are said to be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import pellucid as pel
from method_cases import COLOURS, D, close, pooled, random_input, undrawn
from networks.common import seeded
from pellucid.cli.backpropvis import backpropvis
from pellucid.cli.weighing import weights as weighing
from pellucid.core.errors import ImageError, LayerError, SettingError, TargetError
from pellucid.core.progress import Progress
from pellucid.core.record import record
from pellucid.inside.backprop_vis import BackpropVis, backprop_vis
from pellucid.inside.carriers import carriers

APP = typer.Typer()
APP.command()(backpropvis)
APP.command("weights")(weighing)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed; make test installs it")
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    Image.fromarray(data.chelsea()).save(path)
    return path


@pytest.fixture(scope="module")
def found(photo: Path) -> BackpropVis:
    return backprop_vis("builtin:photos", photo)


def test_the_maps_are_those_of_the_methods(found: BackpropVis, photo: Path):
    names = ["grad_cam", "guided_backprop", "gated_backprop", "visual_backprop", "fullgrad"]
    assert list(found.maps) == names
    panel = {one.method: one for one in pel.explain("builtin:photos", [photo], methods=names)}
    for name in names:
        assert torch.equal(found.maps[name].attribution, panel[name].attribution), name
    assert found.layer == panel["grad_cam"].layer


@pytest.mark.parametrize(("cam", "backprop"), [("layer_cam", "saliency"), ("cam", "lrp"), ("eigen_cam", "deconvnet")])
def test_any_cam_times_any_backprop(cam: str, backprop: str):
    model, x = pooled().float(), random_input(1, 3, 8, 8, dtype=torch.float32)
    one = backprop_vis(pel.wrap(model, preprocess=COLOURS), x, cam=cam, backprop=backprop, target=2)
    gate = one.maps[cam].attribution.clamp(min=0)[None, None]
    big = F.interpolate(gate, size=(8, 8), mode="bilinear", align_corners=False)[0]
    close(one.maps["gated_backprop"].attribution, big * one.maps[backprop].attribution, 1e-5)
    assert one.image().width > 800


@pytest.mark.parametrize("target", ["top1", 4, "3 vs 1", "probability:2"])
def test_the_shares_sum_to_the_score(photo: Path, target: object):
    one = backprop_vis("builtin:photos", photo, target=target)
    assert sum(one.shares.values()) == pytest.approx(one.score, rel=1e-4, abs=1e-4)
    first = one.receipt.checks[0]
    assert (first.name, first.verdict) == ("completeness residual", "pass")
    assert "input" in one.shares and "head" in one.shares and any(name.startswith("stage1") for name in one.shares)


def test_the_shares_are_exact_in_double_precision_and_need_the_batch_norm(monkeypatch: pytest.MonkeyPatch):
    from pellucid.methods import fullgrad

    model, x = pel.wrap(pooled(), preprocess=COLOURS), random_input(1, 3, 8, 8)
    assert backprop_vis(model, x).receipt.checks[0].value < 1e-10
    true = fullgrad._bias
    monkeypatch.setattr(fullgrad, "_bias", lambda n: true(n) * 0 if n.kind == "batch_norm" else true(n))
    broken = backprop_vis(model, x).receipt.checks[0]
    assert broken.value > 1e-3 and broken.verdict == "warn"


class Summed(nn.Module):
    """A residual sum in front of the pooling: every channel is made by two filters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.b, self.c = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.relu, self.head = nn.ReLU(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.a(x)))
        return self.head(self.relu(self.b(x) + self.c(x)).mean((2, 3)))


def test_carriers_are_the_channels_through_which_the_score_goes():
    model, x = seeded(Summed)().to(D), random_input(2, 3, 7, 7)
    trace = record(model, x)
    A = trace.at("relu").data
    w = model.head.weight.detach()[2]
    expected = A[0].mean((1, 2)) * w  # behind a global average the score is linear in the maps
    known = carriers(trace, pel.logit(2), trace.at("relu"), Progress(), 6)
    alive = [c for c in expected.abs().argsort(descending=True).tolist() if expected[c]]
    assert [c.channel for c in known] == alive
    for c in known:
        assert c.carries == pytest.approx(float(expected[c.channel]), rel=1e-10)
        assert c.weight == pytest.approx(float(w[c.channel]) / 49, rel=1e-10)
        assert {(f.kernel.name, f.number) for f in c.filters} == {("b", c.channel), ("c", c.channel)}
        np.testing.assert_allclose(c.activation, A[0, c.channel], rtol=1e-6)
    assert sum(c.carries for c in known) + float(model.head.bias[2]) == pytest.approx(float(trace.scores[0, 2]))


def test_filters_tell_their_biases_and_what_feeds_them():
    model, x = seeded(Summed)().to(D), random_input(1, 3, 7, 7)
    trace = record(model, x)
    (first, *_) = carriers(trace, pel.logit(2), trace.at("norm"), Progress(), 6)
    (made,) = first.filters
    sigma = torch.sqrt(model.norm.running_var + model.norm.eps)
    scale = (model.norm.weight / sigma)[first.channel]
    assert made.kernel.name == "a" and made.number == first.channel
    assert made.bias == pytest.approx(float(model.a.bias[first.channel]))
    assert made.scale == pytest.approx(float(scale))
    assert made.shift == pytest.approx(
        float(model.norm.bias[first.channel] - scale * model.norm.running_mean[first.channel])
    )
    slow = [
        float(F.conv2d(x[:, i : i + 1], model.a.weight[first.channel, i][None, None], padding=1).sum())
        for i in range(3)
    ]
    order = sorted(range(3), key=lambda i: -abs(slow[i]))
    assert [i for i, _ in made.fed()] == order
    assert [v for _, v in made.fed()] == pytest.approx([slow[i] for i in order])


def test_grouped_filters_are_drawn_with_their_own_channels():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.ReLU())
    net = nn.Sequential(*net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    one = backprop_vis(pel.wrap(net, preprocess=COLOURS), random_input(1, 3, 12, 12, dtype=torch.float32), channels=8)
    for c in one.carriers:
        own = c.filters[0].strongest_own(9)
        assert set(own) <= {0, 1}
    assert one.image().height > 300


def test_a_network_without_rectifiers_has_no_baseline_and_says_so():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    one = backprop_vis(pel.wrap(net, preprocess=COLOURS), random_input(1, 3, 8, 8, dtype=torch.float32))
    assert "visual_backprop" not in one.maps and "no rectifier" in one.sentence()
    assert one.receipt.checks[0].value < 1e-4


def test_mistakes_are_told(photo: Path):
    with pytest.raises(SettingError, match="'layer_cam'"):
        backprop_vis("builtin:photos", photo, cam="saliency")
    with pytest.raises(TargetError, match="one score"):
        backprop_vis("builtin:photos", photo, target="top3")
    with pytest.raises(LayerError, match="stage9"):
        backprop_vis("builtin:photos", photo, layer="stage9")
    with pytest.raises(ImageError, match="one picture"):
        backprop_vis("builtin:photos", random_input(2, 3, 32, 32, dtype=torch.float32))
    with pytest.raises(ImageError, match="attribute"):
        backprop_vis(pooled(3), random_input(1, 3, 8, 8, 8))


def test_files_tables_and_words(found: BackpropVis, tmp_path: Path):
    for suffix in (".png", ".html", ".json"):
        assert found.save(tmp_path / f"b{suffix}").stat().st_size > 2000
    facts = json.loads((tmp_path / "b.json").read_text())
    shares = {row[0]: row[1] for row in facts["tables"][0]["rows"]}
    assert sum(shares.values()) == pytest.approx(facts["score"], rel=1e-4)
    assert [t["name"] for t in facts["tables"]] == ["shares", "channels", "paths"]
    assert "completeness residual" in facts["receipt"]["checks"][0]["name"]
    assert found.target in found.sentence() and "stage2" in found.sentence()
    assert repr(found) == "BackpropVis(builtin:photos, logit of 3 cat, grad_cam × guided_backprop at stage2)"
    assert len(found.carriers) == 6 and "<img" in found._repr_html_()


def test_nothing_is_touched(untouched, photo: Path):
    model = pel.load("builtin:photos")
    with untouched(model.module), undrawn():
        backprop_vis(model, photo, cam="layer_cam", backprop="gradient_x_input").image()


def test_the_command(photo: Path, tmp_path: Path):
    run = CliRunner().invoke
    out = tmp_path / "sheet.png"
    given = ["backpropvis", str(photo), "--out", str(out), "--target", "dog", "--cam", "layer_cam", "--channels", "2"]
    done = run(APP, given)
    assert done.exit_code == 0, done.output
    assert "dog" in done.output and "the score is" in done.output
    assert Image.open(out).width > 1000
    assert run(APP, given).exit_code == 1, "an existing file is not replaced"
    facts = json.loads(run(APP, [*given, "--overwrite", "--json"]).stdout)
    assert facts["target"].endswith("dog") and Path(facts["file"]) == out
    assert run(APP, [*given[:2], "--out", "x.txt"]).exit_code == 1
    assert run(APP, [*given, "--overwrite", "--quiet"]).output == ""


def test_the_command_of_the_weights(photo: Path, tmp_path: Path):
    run = CliRunner().invoke
    listed = run(APP, ["weights", "builtin:photos"])
    assert listed.exit_code == 0 and "stage2.2.0" in listed.output and "610,400 weights" in listed.output
    out = tmp_path / "w.html"
    one = run(APP, ["weights", "builtin:photos", "--layer", "head", "--image", str(photo), "--out", str(out)])
    assert one.exit_code == 0 and "w · a" in one.output and out.stat().st_size > 5000
    assert run(APP, ["weights", "builtin:photos", "--out", str(out)]).exit_code == 1
    facts = json.loads(run(APP, ["weights", "builtin:photos", "--layer", "stem", "--json"]).stdout)
    assert facts["file"] is None and facts["tables"][0]["rows"][0][0] == "stem.0"
    assert run(APP, ["weights", "builtin:photos", "--layer", "steam"]).exit_code == 1


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v2"])
def test_real_networks_on_a_photograph(data: Path, name: str):
    from test_real_photos import network, sample

    picture = data / "imagenet_sample" / "images" / sample(data)[0]["file"]
    one = backprop_vis(network(data, name), picture)
    assert one.receipt.checks[0].verdict == "pass"
    assert sum(one.shares.values()) == pytest.approx(one.score, rel=1e-3)
    assert one.carriers and all(c.filters for c in one.carriers)
    assert one.image().width > 800
