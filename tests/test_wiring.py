"""Units switched off, what feeds a unit, and whom it feeds, against hooks that do the same to the module itself."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pellucid as pel
from method_cases import undrawn
from pellucid.core.errors import Cancelled, ImageError, LayerError, SettingError
from pellucid.core.progress import Progress
from pellucid.images.datasets import Pictures
from pellucid.images.scenes import compose, render
from pellucid.inside.opened import Unit, opened
from pellucid.inside.wiring.ablate import ablation, selectivities
from pellucid.inside.wiring.coupling import Asking
from pellucid.inside.wiring.feeds import feeders, followers
from pellucid.inside.wiring.places import class_of, fed, feeding


@pytest.fixture(scope="module")
def scenes() -> Pictures:
    chosen = [compose(number) for number in range(20)]
    model = pel.load("builtin:scenes")
    return Pictures(
        [render(s).pixels for s in chosen], [str(s) for s in chosen], [s.label for s in chosen], model.preprocess
    )


def everything(data: Pictures) -> torch.Tensor:
    return torch.stack([data.input(i) for i in range(len(data))])


class Odd(nn.Module):
    """Functional calls, a reused module, an in-place rectifier, a sum, a concatenation, channels last; any channels."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.mixed = nn.Linear(12, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        a = self.relu(self.first(x))
        b = self.relu(self.second(a) + a)
        c = self.mixed(torch.cat([a, b], 1).permute(0, 2, 3, 1)).relu()
        return self.head(F.gelu(c).mean((1, 2)))


def switched(module, layer, channel, x, value=0.0, axis=1, call=None):
    """The output with a hook that overwrites one channel of a layer; of one of its calls if that is named."""
    calls = []

    def hook(_, __, output):
        calls.append(1)
        if call is not None and len(calls) != call + 1:
            return None
        output = output.clone()
        output.select(axis, channel).fill_(value)
        return output

    handle = module.get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.no_grad():
            return module(x)
    finally:
        handle.remove()


@pytest.mark.parametrize(("name", "layer"), [("builtin:scenes", "features.9"), ("builtin:photos", "stage1.1.bn2")])
def test_a_unit_off_is_the_module_with_that_channel_zero(name, layer, scenes):
    model = pel.load(name)
    units = [Unit(layer, 0), f"{layer}:17", f"{layer}:5"]
    x = everything(scenes)[:5] if name == "builtin:scenes" else torch.randn(5, 3, 32, 32)
    found = ablation(model, units, x)
    with torch.no_grad():
        before = model.module(x)
    for row, channel in enumerate((0, 17, 5)):
        after = switched(model.module, layer, channel, x)
        lost = (before - after).double()
        assert np.abs(found.scores[row] - lost.mean(0).numpy()).max() < 1e-5
        assert np.allclose(found.score_errors[row], lost.std(0).numpy() / 5**0.5, atol=1e-5)
        p = (before.softmax(1) - after.softmax(1)).double().mean(0).numpy()
        assert np.abs(found.probabilities[row] - p).max() < 1e-5
        assert found.flipped[row] == (before.argmax(1) != after.argmax(1)).double().mean().item()
    assert np.abs(found.scores).max() > 1e-3 and found.pictures == 5 and found.accuracy is None


@pytest.mark.parametrize(
    ("layer", "path", "axis", "call"),
    [("first", "first", 1, None), ("relu#0", "relu", 1, 0), ("relu#1", "relu", 1, 1), ("second", "second", 1, None),
     ("mixed", "mixed", 3, None)],
)  # fmt: skip
def test_any_module(layer, path, axis, call, untouched):
    module = Odd().double().eval()
    x = torch.randn(3, 4, 7, 5, dtype=torch.float64)
    with untouched(module), undrawn():
        found = ablation(module, layer, x)
    with torch.no_grad():
        before = module(x)
    for channel in range(len(found.units)):
        after = switched(module, path, channel, x, axis=axis, call=call)
        assert np.allclose(found.scores[channel], (before - after).mean(0).numpy(), atol=1e-12)
    assert np.abs(found.scores).max() > 1e-4


def test_off_may_be_the_mean_over_all_pictures():
    module = Odd().double().eval()
    x = torch.randn(40, 4, 6, 6, dtype=torch.float64)
    found = ablation(module, ["second:2"], x, fill="mean")
    kept = []
    handle = module.second.register_forward_hook(lambda _, __, output: kept.append(output.clone()))
    with torch.no_grad():
        before = module(x)
    handle.remove()
    after = switched(module, "second", 2, x, kept[0][:, 2].mean().item())
    assert np.allclose(found.scores[0], (before - after).mean(0).numpy(), atol=1e-12)


def test_accuracy_and_selectivity_follow_the_labels(scenes):
    model = pel.load("builtin:scenes")
    found = ablation(model, ["features.14:36", "features.14:3"], scenes)
    x = everything(scenes)
    truth = torch.tensor([model.index(label) for label in scenes.labels if label])
    with torch.no_grad():
        maps = model.module.features(x)
        after = switched(model.module, "features.14", 36, x)
    assert found.accuracy == (model.module(x).argmax(1) == truth).double().mean().item()
    assert found.accuracy_off[0] == (after.argmax(1) == truth).double().mean().item()
    level = maps[:, 36].mean((1, 2)).double()
    by_class = torch.stack([level[truth == k].mean() for k in truth.unique()])
    rest = (by_class.sum() - by_class.max()) / (len(by_class) - 1)
    assert found.selectivity[0] == pytest.approx(float((by_class.max() - rest) / (by_class.max() + rest)), abs=1e-6)
    assert found.prefers[0] == truth.unique()[by_class.argmax()] and found.by_label


def test_a_unit_for_one_class_is_selective_and_an_even_one_is_not():
    levels = {0: np.array([1.0, 2.0, 0.0, -1.0]), 3: np.array([0.0, 2.0, 0.0, 1.0]), 5: np.array([0.0, 2.0, 0.0, 0.0])}
    found, prefers = selectivities(levels, 4)
    assert found[0] == 1 and found[1] == 0 and np.isnan(found[2:]).all()
    assert prefers.tolist() == [0, 0, -1, 3]
    alone = selectivities({0: levels[0]}, 4)
    assert np.isnan(alone[0]).all() and (alone[1] == -1).all()


def test_a_network_that_reads_numbers_off_the_picture():
    class Choosy(Odd):
        def forward(self, x):
            return super().forward(x) * (2.0 if x.mean() > 0 else 1.0)

    module = Choosy().double().eval()
    x = torch.randn(6, 4, 6, 6, dtype=torch.float64)
    found = ablation(module, ["first:1"], x)
    rows = [(module(one[None]) - switched(module, "first", 1, one[None])).detach() for one in x]
    assert np.allclose(found.scores[0], torch.cat(rows).mean(0).numpy(), atol=1e-12)


def test_a_single_score_and_pictures_of_several_sizes():
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1), nn.Flatten(0)
    ).eval()
    big, small = torch.randn(1, 9, 9), torch.randn(1, 6, 7)
    found = ablation(module, "1", Pictures([big, small], ["a", "b"], [None, None], None))
    rows = torch.stack([(module(x[None]) - switched(module, "1", 2, x[None])).detach() for x in (big, small)])
    assert found.scores[2] == pytest.approx(rows.double().mean(0).numpy(), abs=1e-6) and found.classes == ("class 0",)
    assert found.pictures == 2


def test_the_layer_that_feeds_and_the_layer_that_is_fed():
    trace = opened(pel.load("builtin:photos")).trace
    feeds = {"stem": "input", "stage1.0.0": "stem", "stage1.1.conv2": "stage1.1.relu1", "stage1": "stage1.0",
             "stage2.1.relu1": "stage2.0", "pool": "stage2.1", "head": "pool"}  # fmt: skip
    assert {name: feeding(trace, name) for name in feeds} == feeds
    follows = {"stem": "stage1.0.0", "stage1.1.conv1": "stage1.1.conv2", "stage1.0": "stage1", "stage2": "classes"}
    assert {name: fed(trace, name) for name in follows} == follows
    odd = opened(Odd().eval(), torch.randn(2, 4, 6, 6)).trace
    assert feeding(odd, "relu#1") == "relu#0" and feeding(odd, "mixed") == "relu#0" and feeding(odd, "head") == "mixed"
    assert fed(odd, "relu#0") == "mixed" and fed(odd, "second") == "mixed" and fed(odd, "mixed") == "classes"
    with pytest.raises(LayerError, match="feeds nothing"):
        fed(odd, "head")


def test_feeders_are_the_channels_whose_loss_changes_the_unit():
    module = Odd().double().eval()
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    found = feeders(module, "second:4", x, count=6)
    assert found.layer == "relu#0" and found.direction == "feeders"

    def level(channel=None):
        a = F.relu(module.first(x)).detach()
        if channel is not None:
            a[:, channel] = 0
        return module.second(a)[:, 4].mean().item()

    expected = np.array([level() - level(i) for i in range(6)])
    order = np.argsort(-np.abs(expected))
    assert found.channels.tolist() == order.tolist() and np.allclose(found.values, expected[order], atol=1e-12)
    assert found.covered_fraction == pytest.approx(1.0)
    few = feeders(module, "second:4", x, count=2)
    assert few.covered_fraction == pytest.approx(np.abs(expected[order[:2]]).sum() / np.abs(expected).sum())
    assert "second:4 is" in few.sentence() and few.image().width > 200


def test_followers_end_at_the_classes(scenes):
    model = pel.load("builtin:scenes")
    found = followers(model, "features.14:36", scenes, 3)
    whole = ablation(model, ["features.14:36"], scenes)
    assert found.layer == "classes"
    assert list(zip(found.names, found.values, strict=True)) == [
        (name, pytest.approx(value, abs=1e-6)) for name, value, _ in whole.strongest("features.14:36", 3)
    ]
    assert feeders(model, "classes:house", scenes).title == "What feeds house"


def test_one_picture_and_the_input_as_feeder(scenes):
    model = pel.load("builtin:scenes")
    found = feeders(model, "features.0:3", scenes.sources[0])
    assert found.layer == "input" and len(found.values) == 3 and found.pictures == 1 and np.isnan(found.errors).all()
    x = scenes.input(0)[None]
    with torch.no_grad():
        before = model.module.features[0](x)[:, 3].mean()
        x[:, found.channels[0]] = 0
        after = model.module.features[0](x)[:, 3].mean()
    assert found.values[0] == pytest.approx(float(before - after), abs=1e-6)


def test_mistakes_are_told(scenes):
    model, x = pel.load("builtin:scenes"), torch.zeros(1, 3, 64, 64)
    for call, error, words in [
        (lambda: ablation(model, "features.99", x), LayerError, "did you mean"),
        (lambda: ablation(model, "features.9:999", x), LayerError, "it has 64"),
        (lambda: ablation(model, [], x), SettingError, "name a layer"),
        (lambda: ablation(model, None, x[:0]), ImageError, "empty"),
        (lambda: feeders(model, "features.9:1", x, source="features.14"), LayerError, "does not depend"),
        (lambda: feeders(model, "features.9:1", x, 0), SettingError, "at least one"),
        (lambda: Asking("x"), SettingError, "no way of asking"),
        (lambda: followers(model, "features.9:1", x, target="features.3"), LayerError, "does not depend"),
        (lambda: ablation(model, "features.9:1", x).row("features.9:2"), LayerError, "not switched off"),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_it_can_be_stopped_and_leaves_no_trace(untouched):
    module, events = Odd().eval(), []

    def stop(done, total, label):
        events.append((done, total))
        if done >= 6:
            progress.cancel()

    progress, x = Progress(on_event=stop), torch.randn(3, 4, 6, 6)
    with untouched(module), undrawn(), pytest.raises(Cancelled):
        ablation(module, "first", x, progress=progress)
    assert events[0][1] == 18
    counted = Progress()
    ablation(module, "first", x, progress=counted)
    assert counted.done == counted.total == 18


def test_names_of_folders_are_classes():
    model = pel.load("builtin:scenes")
    assert class_of(model, "striped_beetle") == model.index("striped beetle") and class_of(model, "3") == 3
    assert class_of(model, "submarine") is None and class_of(model, None) is None


def test_it_shows_itself(scenes, tmp_path):
    found = ablation("builtin:scenes", "features.14", scenes)
    for name in ("a.png", "a.html", "a.json"):
        assert found.save(tmp_path / name).stat().st_size > 1000
    assert found.image().height > 300 and "matters most" in found.sentence() and "128 units" in repr(found)
    assert len(found.tables[0].rows) == 128
