"""The training loop: it learns, it is repeatable and resumable to the last bit, it harms nothing of the user's."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from torch import nn

from pellucid.core.errors import Cancelled, FileError, ModelError, SettingError
from pellucid.core.progress import Progress
from pellucid.store import read_tensors, write_tensors
from pellucid.training import Epoch, History, Jitter, Standardise, accuracy, fit, predictions
from pellucid.training.settings import Settings


def network(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def solid(n=60, seed=0):
    """Red, green or blue pictures with noise, uint8, and which colour they are."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = torch.randint(0, 120, (n, 3, 8, 8), generator=random)
    x[torch.arange(n), y] += 60
    return x.to(torch.uint8), y


def trained(module=None, checkpoint=None, **more):
    """A short training on those; the module and its history."""
    module = module if module is not None else network()
    jitter = Jitter(1, 0.1, 0.1, 0.02)
    settings = {"epochs": 4, "peak_learning_rate": 0.02, "batch": 16, "augment": jitter, "seed": 3, "progress": False}
    history = fit(module, *solid(), checkpoint=checkpoint, **{**settings, **more})
    return module, history


def bits(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Cancelling(Progress):
    """Progress that stops the work after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def advance(self, steps=1, label=""):
        self.left -= steps
        if self.left < 0:
            self.cancel()
        super().advance(steps, label)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns(optimizer, precision):
    module, history = trained(epochs=8, optimizer=optimizer, precision=precision, clip_norm=1.0, label_smoothing=0.05)
    assert accuracy(module, *solid(seed=1)) == 1.0
    assert [e.accuracy for e in history.epochs] == [None] * 8
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert history.best_epoch == 8
    assert not history.stopped_early
    assert history.seconds > 0


def test_it_learns_volumes_of_floats():
    random = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.rand(40, 1, 4, 5, 6, generator=random) * 0.5 + 0.3 * y.view(-1, 1, 1, 1, 1)
    module = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2))
    fit(module, x, y, epochs=20, peak_learning_rate=0.05, batch=8, augment=Jitter(1, noise=0.02), progress=False)
    assert accuracy(module, x, y) == 1.0
    assert all(p.is_contiguous() for p in module.parameters())


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    assert same(bits(trained()[0]), bits(trained()[0]))
    assert not same(bits(trained()[0]), bits(trained(seed=4)[0]))


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 8, 11])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resuming_gives_the_bits_of_an_uninterrupted_training(tmp_path, steps, optimizer):
    whole, history = trained(optimizer=optimizer, validation=solid(30, 1))
    place = tmp_path / "run.checkpoint"
    with pytest.raises(Cancelled):
        trained(optimizer=optimizer, validation=solid(30, 1), checkpoint=place, progress=Cancelling(steps))
    torch.manual_seed(99)
    resumed, again = trained(
        network(seed=7), optimizer=optimizer, validation=solid(30, 1), checkpoint=place, resume=True
    )
    assert same(bits(resumed), bits(whole))
    plain = lambda h: [(e.loss, e.train_accuracy, e.accuracy) for e in h.epochs]  # noqa: E731
    assert plain(again) == plain(history)
    assert again.best_epoch == history.best_epoch


def test_stopping_often_changes_nothing_either(tmp_path):
    whole, _ = trained()
    place = tmp_path / "run.checkpoint"
    for seed, resume in ((0, False), (5, True), (6, True)):
        with pytest.raises(Cancelled):
            trained(network(seed), checkpoint=place, resume=resume, progress=Cancelling(4))
    assert same(bits(trained(network(seed=6), checkpoint=place, resume=True)[0]), bits(whole))


def test_a_finished_training_resumes_to_its_end(tmp_path):
    module, history = trained(checkpoint=tmp_path / "c")
    again, same_history = trained(network(seed=1), checkpoint=tmp_path / "c", resume=True)
    assert same(bits(again), bits(module))
    assert same_history == history


def test_the_checkpoint_is_numbers_and_json(tmp_path):
    trained(checkpoint=tmp_path / "c")
    with safe_open(str(tmp_path / "c"), framework="pt") as file:
        assert json.loads(file.metadata()["pellucid"])["epochs"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_nothing_is_overwritten_unasked(tmp_path):
    (tmp_path / "c").write_bytes(b"mine")
    module = network()
    before = bits(module)
    with pytest.raises(FileError, match="exists already; pass resume=True"):
        trained(module, checkpoint=tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"mine"
    assert same(bits(module), before)
    with pytest.raises(FileError, match="damaged or not a pellucid file"):
        trained(module, checkpoint=tmp_path / "c", resume=True)
    assert same(bits(module), before)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"epochs": 5}, "epochs 4 there, 5 here"),
        ({"seed": 1}, "seed 3 there, 1 here"),
        ({"augment": None}, "augment Jitter"),
        ({"augment": Jitter(2)}, "augment Jitter"),
        ({"prepare": Standardise((0.5,) * 3, (0.2,) * 3)}, "prepare in_unit_range there"),
        ({"validation": solid(30, 1)}, "data "),
        ({"module": network()[:6].append(nn.Linear(6, 4))}, "weights "),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, more, said):
    trained(checkpoint=tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(FileError, match=said):
        trained(checkpoint=tmp_path / "c", resume=True, **more)
    assert (tmp_path / "c").read_bytes() == before


def test_a_checkpoint_whose_insides_were_changed_is_refused(tmp_path):
    trained(checkpoint=tmp_path / "c")
    tensors, facts = read_tensors(tmp_path / "c")
    module = network()
    for name in ("module.0.weight", "best.0.weight", "optimizer.0.exp_avg", "random", "torch_random"):
        write_tensors(tmp_path / "d", {**tensors, name: torch.zeros(3)}, facts)
        with pytest.raises(FileError, match="does not fit"):
            trained(module, checkpoint=tmp_path / "d", resume=True)
        write_tensors(tmp_path / "e", {key: value for key, value in tensors.items() if key != name}, facts)
        if not name.startswith("optimizer"):
            with pytest.raises(FileError, match="does not fit"):
                trained(module, checkpoint=tmp_path / "e", resume=True)
    write_tensors(tmp_path / "d", tensors, {**facts, "history": {"epochs": 3}})
    with pytest.raises(FileError, match="does not fit"):
        trained(module, checkpoint=tmp_path / "d", resume=True)
    write_tensors(tmp_path / "d", tensors, {})
    with pytest.raises(FileError, match="is no checkpoint"):
        trained(module, checkpoint=tmp_path / "d", resume=True)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="there is no checkpoint"):
        trained(checkpoint=tmp_path / "c", resume=True)
    with pytest.raises(FileError, match="without a checkpoint"):
        trained(resume=True)
    with pytest.raises(FileError, match="does not exist; make it first"):
        trained(checkpoint=tmp_path / "no" / "c")


class Exploding(nn.Module):
    """Gives NaN from its so-manieth training step on."""

    def __init__(self, step):
        super().__init__()
        self.body, self.step = network(), step

    def forward(self, x):
        self.step -= self.training
        return self.body(x) * (math.nan if self.step < 0 else 1.0)


def test_a_loss_that_is_not_finite_is_told_and_the_last_epoch_is_kept(tmp_path):
    module = Exploding(3 + 1)
    with pytest.raises(SettingError, match=r"the loss is nan at step 2 of epoch 2.*lower peak_learning_rate"):
        trained(module, checkpoint=tmp_path / "c")
    tensors, facts = read_tensors(tmp_path / "c")
    assert len(facts["history"]["epochs"]) == 1
    assert same(bits(module), {key.removeprefix("best."): t for key, t in tensors.items() if key.startswith("best.")})
    assert not any(m.training for m in module.modules())


def test_weights_that_are_not_finite_are_told():
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(SettingError, match=r"not finite|the loss is"):
        trained(module, peak_learning_rate=1e38, epochs=2, optimizer="sgd")
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_the_best_weights_are_kept_and_patience_stops():
    x, y = solid()
    right, wrong = (x, y), (x, (y + 1) % 3)
    module, history = trained(validation=wrong, epochs=12, patience=2)
    seen = [e.accuracy for e in history.epochs]
    assert history.stopped_early
    assert len(history.epochs) < 12
    assert accuracy(module, *wrong) == max(seen) == history.best.accuracy
    module, history = trained(validation=right, epochs=6)
    assert accuracy(module, *right) == max(e.accuracy for e in history.epochs)


def test_history_keeps_the_latest_of_equals():
    history = History()
    for seen in (0.5, 0.7, 0.6, 0.7, 0.7):
        history = history.with_epoch(Epoch(1.0, 0.5, seen, 1.0), patience=3)
    assert history.best_epoch == 5
    assert history.stopped_early
    assert History.from_json(json.loads(json.dumps(history.to_json()))) == history
    assert History().best is None


def test_the_users_random_numbers_and_module_are_left_alone():
    module = network()
    state = torch.get_rng_state()
    trained(module)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in module.parameters())
    assert not any(m.training for m in module.modules())


def test_frozen_parameters_stay():
    module = network()
    module[0].weight.requires_grad_(False)
    before = module[0].weight.clone()
    trained(module)
    assert torch.equal(module[0].weight, before)
    for p in module.parameters():
        p.requires_grad_(False)
    with pytest.raises(ModelError, match="unfreeze"):
        trained(module)


def test_looking_changes_nothing(untouched):
    module = network()
    module[1].eval()
    with untouched(module):
        found = predictions(module, solid()[0], batch=7)
        assert found.shape == (60,)
        assert accuracy(module, *solid()) == (found == solid()[1]).double().mean().item()


X, Y = solid(6)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (X[:0], Y[:0], "hold nothing"),
        (X, Y[:5], "with the same n"),
        (X, Y[:, None], "with the same n"),
        (X, Y + 1, "labels from 1 to 3 came, but the network has 3 classes"),
        (X, Y - 1, "labels from -1 to 1"),
        (X, Y.float(), r"y.long\(\)"),
        (X, Y == 1, "class numbers"),
        (X.int(), Y, "uint8"),
        (X.float() / 0, Y, "not finite"),
    ],
)
def test_data_that_can_not_be_learnt_from(x, y, said):
    module = network()
    before, modes = bits(module), [m.training for m in module.modules()]
    with pytest.raises(SettingError, match=said):
        fit(module, x, y, epochs=1, peak_learning_rate=0.1)
    with pytest.raises(SettingError, match="validation data: .*" + said):
        fit(module, X, Y, epochs=1, peak_learning_rate=0.1, validation=(x, y))
    assert same(bits(module), before)
    assert [m.training for m in module.modules()] == modes


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"epochs": 0}, "epochs is a whole number"),
        ({"batch": 0}, "batch"),
        ({"seed": -1}, "seed"),
        ({"peak_learning_rate": 0.0}, "peak_learning_rate"),
        ({"peak_learning_rate": math.nan}, "peak_learning_rate"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"optimizer": "adam"}, "there are adamw, sgd"),
        ({"precision": "float16"}, "there are float32, bfloat16"),
        ({"patience": 0, "validation": (X, Y)}, "patience"),
        ({"patience": 2}, "validation"),
    ],
)
def test_settings_that_make_no_sense(more, said):
    numbers = {"epochs": 1, "peak_learning_rate": 0.1, "batch": 4, "seed": 0, "optimizer": "sgd", "weight_decay": 0.0,
               "label_smoothing": 0.0, "clip_norm": None, "precision": "float32", "patience": None}  # fmt: skip
    with pytest.raises(SettingError, match=said):
        if "validation" in said:
            fit(network(), X, Y, epochs=1, peak_learning_rate=0.1, **more)
        Settings(**{**numbers, **{key: value for key, value in more.items() if key != "validation"}})


def test_networks_that_do_not_take_the_data():
    with pytest.raises(ModelError, match=r"does not take a batch of shape \(2, 1, 8, 8\)"):
        fit(network(), X[:, :1], Y, epochs=1, peak_learning_rate=0.1)
    with pytest.raises(ModelError, match="expected logits"):
        fit(nn.Conv2d(3, 3, 3), X, Y, epochs=1, peak_learning_rate=0.1)


def test_the_learning_rate_runs_through_one_cycle():
    settings = Settings(1, 4, 2.0, 0, "sgd", 0.0, 0.0, None, "float32", None)
    rates = [settings.learning_rate(step, 100) for step in range(100)]
    assert rates.index(max(rates)) == 25
    assert max(rates) == pytest.approx(2.0)
    assert rates[0] == pytest.approx(2.0 / 25)
    assert rates[-1] == pytest.approx(2e-4)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert all(math.isfinite(settings.learning_rate(step, n)) for n in (1, 2, 3) for step in range(n))


def test_jitter_shifts_by_whole_pixels_and_keeps_the_range():
    random = torch.Generator().manual_seed(0)
    x = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(50, 3, 1, 1)
    shifted = Jitter(2)(x, random)
    starts = {(round(float(v[0, 4, 4]) * 255) // 8 - 4, round(float(v[0, 4, 4]) * 255) % 8 - 4) for v in shifted}
    assert starts <= {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    assert len(starts) > 10
    assert torch.equal(shifted[:, 0], shifted[:, 1])
    changed = Jitter(0, 0.5, 0.5, 0.5)(x, random)
    assert 0 <= changed.min() < changed.max() <= 1
    assert torch.equal(Jitter()(x, random), x.float() / 255)
    assert Jitter(1, noise=0.1)(torch.rand(2, 1, 4, 5, 6), random).shape == (2, 1, 4, 5, 6)
