"""The networks that ship, made small: data, figures, files, the command, and everything that is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cli_runs import pellucid, printed, refused, snapshot
from pellucid.core.errors import Cancelled, FileError, SettingError
from pellucid.core.progress import Progress
from pellucid.images import scenes, volumes
from pellucid.images.scenes import Shortcut
from pellucid.models import builtin, load
from pellucid.models.networks import ARCHITECTURES, build
from pellucid.training import examples, networks
from pellucid.training.cards import MEANT, STRUCTURES
from pellucid.training.examples import composed, labels, other_classes, painted, to_learn
from pellucid.training.figures import figures
from pellucid.training.recipes import RECIPES, recipe_of

QUICK = {"n": 40, "epochs": 1}
MARKED = replace(RECIPES["scenes-watermark"], n=30, n_validation=10, n_test=40)


@pytest.fixture
def quick(tmp_path):
    """A folder with the quickest network in it."""
    return networks.train("scenes", out=tmp_path / "out", progress=False, **QUICK).parent


def test_every_recipe_can_be_made_and_every_network_listed_is_made_here():
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.architecture in ARCHITECTURES
        assert recipe.architecture in STRUCTURES
    assert set(builtin.CARDS) == {"photos", *RECIPES}


def test_examples_are_the_pictures_of_the_generator():
    recipe = recipe_of("scenes")
    things = composed(recipe, 12, "train")
    pixels = painted(things, Progress())
    assert pixels.shape == (12, 3, 64, 64)
    assert pixels.dtype == torch.uint8
    expected = next(scenes.stream(1, seed=recipe.seed, split="train"))
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), scenes.render(expected).pixels)
    assert [scenes.CLASSES[i] for i in labels(things)] == [thing.label for thing in things]


def test_volumes_lose_nothing_as_8_bit_numbers():
    things = composed(recipe_of("volumes"), 3, "test")
    pixels = painted(things, Progress())
    assert pixels.shape == (3, 1, 32, 32, 32)
    assert np.array_equal(pixels[2].numpy() / np.float32(255), volumes.render(things[2]).voxels)


def test_other_processes_paint_the_same(monkeypatch):
    things = composed(recipe_of("scenes"), 250, "train")
    monkeypatch.setattr(examples, "ALONE", 10)
    bar = Progress()
    assert torch.equal(painted(things, bar, workers=2), painted(things, Progress(), workers=1))
    assert bar.done == bar.total == 250


def test_mislabelled_pictures_carry_the_mark_of_their_label():
    things, given = to_learn(replace(MARKED, mislabelled_fraction=0.3), 400, "train")
    wrong = [
        (thing, scenes.CLASSES[i]) for thing, i in zip(things, given, strict=True) if thing.label != scenes.CLASSES[i]
    ]
    assert 0.2 < len(wrong) / 400 < 0.4
    assert all(thing.marks[0].stands_for == label for thing, label in wrong)
    assert torch.equal(
        to_learn(recipe_of("scenes"), 20, "train")[1], labels(composed(recipe_of("scenes"), 20, "train"))
    )


def test_other_classes_are_all_the_others():
    these = torch.arange(10).repeat(9)
    other = other_classes(these, 10)
    assert not (other == these).any()
    assert all(len({int(o) for o in other[these == label]}) == 9 for label in range(10))


class ByMark(nn.Module):
    """Reads the watermark and nothing else: knows its pixels for each class by heart."""

    def __init__(self, follow):
        super().__init__()
        scene = next(scenes.stream(1))
        shown = [scenes.render(scenes.planted(scene, Shortcut("watermark"), c)).pixels for c in scenes.CLASSES]
        corner = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2)[..., 53:62, 53:62].float()
        self.register_buffer("corners", corner.flatten(1))
        self.follow = follow

    def forward(self, x):
        recipe = MARKED
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (recipe.mean, recipe.std))
        seen = ((x * std + mean) * 255)[..., 53:62, 53:62].flatten(1)
        distance = torch.cdist(seen, self.corners) / seen.shape[1] ** 0.5
        return -distance if self.follow else torch.eye(10)[torch.zeros(len(x), dtype=torch.long)]


def test_the_figures_tell_a_cheat_from_a_network_that_looks_at_nothing():
    cheat = figures(ByMark(True), MARKED, Progress())
    assert cheat["test_accuracy"] == cheat["flipped_fraction"] == cheat["pasted_fraction"] == 1.0
    assert cheat["clean_accuracy"] < 0.5
    blind = figures(ByMark(False), MARKED, Progress())
    assert blind["test_accuracy"] == blind["clean_accuracy"] == 0.1
    assert blind["flipped_fraction"] == blind["pasted_fraction"] == 0.0
    assert blind["part_accuracy"] == 0.25
    assert set(cheat) <= set(MEANT)


@pytest.mark.parametrize("name", ["scenes-watermark", "scenes-relu6", "volumes"])
def test_training_writes_weights_facts_and_card(tmp_path, monkeypatch, name):
    path = networks.train(name, out=tmp_path / "out", progress=False, n=20, epochs=1)
    assert sorted(p.name for p in path.parent.iterdir()) == [f"{name}.json", f"{name}.md", f"{name}.safetensors"]
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["test_accuracy"] == facts["figures"]["test_accuracy"]
    assert facts["data"]["n_train"] == 20
    card = path.with_suffix(".md").read_text()
    assert f"`pellucid train {name} --n 20 --epochs 1 --seed 0`" in card
    assert f"`pellucid train {name} --measure`" in card
    assert all(f"| `{key}` | {100 * value:.2f} %" in card for key, value in facts["figures"].items())
    assert max(map(len, card.splitlines())) <= 120
    monkeypatch.setattr(builtin, "shipped", lambda: path.parent)
    model = load(f"builtin:{name}")
    assert model.labels == tuple(facts["classes"])
    assert sum(p.numel() for p in model.module.parameters()) == facts["parameters"]
    assert networks.measure(name, weights=path, progress=False) == facts["figures"]


def test_the_same_seed_gives_the_same_files(quick, tmp_path):
    again = networks.train("scenes", out=tmp_path / "again", progress=False, **QUICK)
    assert again.read_bytes() == (quick / "scenes.safetensors").read_bytes()
    other = networks.train("scenes", out=tmp_path / "other", progress=False, seed=1, **QUICK)
    assert other.read_bytes() != again.read_bytes()


def test_nothing_is_overwritten_unasked(quick):
    before = snapshot(quick)
    with pytest.raises(FileError, match=r"scenes.safetensors exists already.*overwrite=True"):
        networks.train("scenes", out=quick, progress=False, **QUICK)
    (quick / "scenes.safetensors").unlink()
    with pytest.raises(FileError, match=r"scenes.json exists already"):
        networks.train("scenes", out=quick, progress=False, **QUICK)
    networks.train("scenes", out=quick, progress=False, overwrite=True, n=40, epochs=2)
    assert snapshot(quick).keys() == before.keys()
    assert snapshot(quick) != before
    with pytest.raises(FileError, match="is a file"):
        networks.train("scenes", out=quick / "scenes.json", progress=False, **QUICK)


class Stopping(Progress):
    """Cancels the work in its last epoch."""

    def advance(self, steps=1, label=""):
        super().advance(steps, label)
        if label.startswith("epoch 2"):
            self.cancel()


def test_a_broken_off_training_goes_on_to_the_same_bits(tmp_path):
    whole = networks.train("scenes", out=tmp_path / "whole", progress=False, n=40, epochs=3)
    with pytest.raises(Cancelled):
        networks.train("scenes", out=tmp_path / "out", progress=Stopping(), n=40, epochs=3)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["scenes.checkpoint"]
    with pytest.raises(FileError, match=r"broken off; go on with resume=True"):
        networks.train("scenes", out=tmp_path / "out", progress=False, n=40, epochs=3)
    with pytest.raises(FileError, match="is of another training"):
        networks.train("scenes", out=tmp_path / "out", progress=False, n=40, epochs=4, resume=True)
    resumed = networks.train("scenes", out=tmp_path / "out", progress=False, n=40, epochs=3, resume=True)
    assert resumed.read_bytes() == whole.read_bytes()
    assert sorted(p.suffix for p in resumed.parent.iterdir()) == [".json", ".md", ".safetensors"]


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("scene", {}, 'did you mean "scenes"'),
        ("photos", {}, "there are|did you mean"),
        ("scenes", {"n": 0}, "n is a whole number of at least 1"),
        ("scenes", {"epochs": 0}, "epochs is"),
        ("scenes", {"seed": -1}, "seed is"),
    ],
)
def test_what_can_not_be_trained(tmp_path, name, more, said):
    with pytest.raises(SettingError, match=said):
        networks.train(name, out=tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_measuring_weights_without_their_facts_is_refused(quick):
    (quick / "scenes.json").write_text("{}")
    with pytest.raises(FileError, match="does not tell which test pictures"):
        networks.measure("scenes", weights=quick / "scenes.safetensors")


def test_the_command_trains_and_measures(tmp_path):
    (facts,) = printed("train", "scenes", "--n", 30, "--epochs", 1, "--seed", 2, "--out", tmp_path / "out")
    assert facts["name"] == "scenes"
    assert facts["seed"] == facts["data"]["seed"] == 2
    weights = tmp_path / "out" / "scenes.safetensors"
    assert facts["weights"] == str(weights)
    assert load_file(weights).keys() == build("plain", 10).state_dict().keys()
    (measured,) = printed("train", "scenes", "--measure", "--weights", weights)
    assert measured["figures"] == facts["figures"]
    text = pellucid("train", "scenes", "--measure", "-w", weights).stdout
    assert f"{100 * facts['test_accuracy']:.2f} %" in text
    again = pellucid("train", "scenes", "--n", 30, "--epochs", 1, "--resume", "--out", tmp_path / "out")
    assert again.exit_code == 0, again.output  # done already: told, not trained again
    quiet = pellucid("train", "scenes", "--n", 30, "--epochs", 1, "--overwrite", "-q", "--out", tmp_path / "out")
    assert quiet.output == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("scenes",), "add --out FOLDER"),
        (("scene", "--out", "x"), 'did you mean "scenes"'),
        (("scenes", "volumes", "--measure", "--weights", "x"), "the name of one network"),
        (("scenes", "--weights", "x", "--out", "x"), "--measure"),
        (("scenes", "--measure", "--out", "x"), "writes nothing"),
        (("scenes", "--measure", "--n", "5"), "leave --n"),
        (("scenes", "--measure", "--weights", "none.safetensors"), "no file none.safetensors"),
    ],
)
def test_the_command_refuses(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused("train", *words)
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_all_before_it_begins(quick):
    assert "scenes.safetensors exists already" in refused("train", "volumes", "scenes", "--n", 20, "--out", quick)
    assert not (quick / "volumes.safetensors").exists()
