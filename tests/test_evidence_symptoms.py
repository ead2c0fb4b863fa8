"""What a symptom may be, what is refused, and what the result can say, show and save."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evidence_cases import PIXELS, SIDE, Reader, ask, net, scene, symptom
from method_cases import undrawn
from pellucid.core.errors import FileError, ImageError, LayerError, MethodError, ModelError, SettingError, TargetError
from pellucid.images.regions import regions
from pellucid.images.transforms import Preprocess
from pellucid.methods.evidence import evidence
from pellucid.methods.evidence.controls import other_units
from pellucid.methods.explain import explain
from pellucid.models.model import wrap
from pellucid.render.visible import visible

# ---- symptoms -------------------------------------------------------------------------------------------------------


def test_a_mask_of_the_picture_is_laid_on_the_input():
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:20, 25:35] = 255
    cropped = wrap(Reader(symptom()).float(), preprocess=Preprocess(resize_px=20, crop_px=SIDE))
    mask = np.zeros((40, 60), bool)
    mask[10:20, 25:35] = True
    found = evidence(cropped, picture, mask, controls=19, progress=False)
    assert found.mask is not None and found.mask.shape == (SIDE, SIDE)
    assert found.mask[3:8, 5:10].all() and found.mask.sum() == 25
    outside = np.zeros((40, 60), bool)
    outside[:, :3] = True
    with pytest.raises(SettingError, match="none of the regions"):
        evidence(cropped, picture, outside, controls=19, progress=False)


def test_every_form_of_a_mask_is_the_same_symptom(tmp_path):
    x, mask = scene(), symptom()
    labels = torch.where(mask, 3, 1)
    Image.fromarray((mask.numpy() * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", mask.numpy())
    cut = regions(labels, x[0])
    forms = [
        mask, mask.numpy(), mask.numpy().astype(np.uint8), tmp_path / "mask.png", str(tmp_path / "mask.npy"),
        (cut, [1]), (labels, 1), (np.where(mask, 1.0, 0.0), 16 / 256),
    ]  # fmt: skip
    found = [ask(net(), x, form) for form in forms]
    assert {one.sym for one in found} == {found[0].sym} and found[0].sym > 0
    assert all((one.mask == mask.numpy()).all() for one in found)


def test_regions_by_number():
    cut = regions("grid:16", scene()[0])
    found = ask(net(), scene(), "grid:16#5,6")
    assert (found.mask == ((cut.labels == 5) | (cut.labels == 6)).numpy()).all()
    assert found.symptom == "grid:16#5,6"
    assert ask(net(), scene(), (cut, [5, 6])).sym == found.sym


def test_the_hottest_part_has_the_area_that_was_asked_for():
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pictured = wrap(net().float(), preprocess=Preprocess(resize_px=SIDE))
    one = explain(pictured, picture, methods="occlusion", fill="grey", window_px=4, stride_px=4, progress=False)
    by_map = evidence(pictured, picture, (one, 0.1), controls=19, progress=False)
    by_words = evidence(pictured, picture, "heat:occlusion:0.1", controls=19, progress=False)
    assert by_map.mask is not None and by_words.mask is not None
    assert by_map.mask.sum() == by_words.mask.sum() == 26
    heat = np.arange(256.0).reshape(SIDE, SIDE) - 200
    found = ask(net(), scene(), (heat, 0.5))
    assert found.mask is not None and (found.mask == (heat > 0)).all()  # only what is positive, though half was asked
    with pytest.raises(SettingError, match="no positive heat"):
        ask(net(), scene(), (-(heat**2), 0.5))
    with pytest.raises(SettingError, match="explain the same picture"):
        evidence(pictured, picture[:20], (one, 0.1), progress=False)


class Units(nn.Module):
    """Two classes: the mean of units 0 and 1 against that of the others."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
        with torch.no_grad():
            self.features[0].weight.fill_(1.0)
            self.features[0].bias.zero_()

    def forward(self, x):
        seen = self.features(x).mean((2, 3))
        return torch.stack([9 * seen[:, :2].sum(1), 9 + 0 * seen[:, 0]], 1)


def test_units_are_switched_off_in_sets_of_the_same_size():
    found = ask(Units().double(), scene(), "unit:features:0,1", controls=99)
    assert found.mask is None and found.fraction == 0.25
    assert found.sym > 0.5 and found.env == 0 and found.flip_rates == (1, 0)
    others = ask(Units().double(), scene(), "unit:features:4,5")
    assert others.sym == 0 and others.fe < 0 and others.verdict == "counter-evidence"
    sets = other_units(8, 2, 99, 0)
    assert (sets.sum(1) == 2).all() and len({tuple(row.tolist()) for row in sets}) > 20
    assert found.control_sym[:3] == pytest.approx([float(_off(row)) for row in sets[:3]])
    assert "the other units of the layer" in found.sentence() and found.picture().width > 100


@torch.no_grad()
def _off(row):
    module, x = Units().double(), scene()
    kept = module.features(x).mean((2, 3)) * ~row
    after = torch.stack([9 * kept[:, :2].sum(1), torch.full((1,), 9.0)], 1).softmax(1)
    return (module(x).softmax(1) - after).abs().sum() / 2


@pytest.mark.parametrize("shape", [(30,), (7, 8, 9)])
def test_signals_and_volumes(shape):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(2, 5) for _ in shape)] = True
    x = torch.where(mask, 0.9, 0.1).double()[None, None]
    found = evidence(wrap(Reader(mask, level=0.5)), x, mask, fills="zero", progress=False)
    assert found.env == 0 and found.sym > 0.9 and found.image is None
    assert found.picture().height < 250 and "evidence" in found.sentence()


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(SIDE, SIDE, dtype=torch.bool), "nowhere True"),
        (torch.ones(SIDE, SIDE, dtype=torch.bool), "whole picture"),
        (torch.ones(SIDE, SIDE + 1, dtype=torch.bool), "17"),
        ("grid:16", "16 regions"),
        ("grid:16#99", "no region 99"),
        ("nowhere.png", "nowhere.png"),
        ("heat:grad_cam", "heat:METHOD:FRACTION"),
        ("heat:grad_kam:0.1", "grad_cam"),
        ("unit:features", "unit:LAYER:NUMBERS"),
        ((np.zeros((SIDE, SIDE)), 0.1), "no positive heat"),
        ((np.ones((SIDE, SIDE)), 1.5), "between 0 and 1"),
        ((torch.ones(SIDE, SIDE, dtype=torch.long), [0, 1]), "region 1"),
    ],
)
def test_symptoms_that_are_none(given, words):
    with pytest.raises((SettingError, ImageError, MethodError, LayerError), match=words):
        ask(net(), scene(), given)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"fills": ("mean", "blurr")}, SettingError, "blur"),
        ({"fills": ()}, SettingError, "no fill"),
        ({"controls": 5}, SettingError, "19"),
        ({"target": "top3"}, TargetError, "top1"),
        ({"target": "unit:0:1"}, TargetError, "no single answer"),
        ({"target": 9}, TargetError, "9"),
        ({"target": "1 vs 1"}, TargetError, "twice"),
        ({"environment": symptom()}, SettingError, "share 16 pixels"),
        ({"seed": -1}, SettingError, "seed"),
    ],
)
def test_settings_that_make_no_sense(settings, error, words):
    with pytest.raises(error, match=words):
        ask(net(), scene(), symptom(), **settings)


def test_units_that_are_not_there():
    module = Units().double()
    with pytest.raises(LayerError, match="unit 8"):
        ask(module, scene(), "unit:features:8")
    with pytest.raises(SettingError, match="all units"):
        ask(module, scene(), "unit:features:0,1,2,3,4,5,6,7")
    with pytest.raises(LayerError, match="featurs"):
        ask(module, scene(), "unit:featurs:0")
    with pytest.raises(SettingError, match="environment"):
        ask(module, scene(), "unit:features:0", environment=symptom())


def test_networks_that_give_no_answer():
    dense = nn.Conv2d(3, 2, 3).double()
    with pytest.raises(TargetError, match="each position"):
        ask(dense, scene(), symptom())

    class Broken(nn.Module):
        def forward(self, x):
            return Reader(symptom())(x) / (x.flatten(1).amin(1, keepdim=True) > 0.01)

    with pytest.raises(MethodError, match="not numbers"):
        ask(Broken(), scene(), symptom(), fills=("black", "mean"))
    with pytest.raises(ModelError, match="preprocess"):
        evidence(wrap(net()), np.zeros((16, 16, 3), np.uint8), symptom(), progress=False)
    with pytest.raises(ImageError, match="one picture"):
        evidence(wrap(net()), torch.zeros(2, 3, 16, 16), symptom(), progress=False)
    with pytest.raises(SettingError, match="preprocess"):
        evidence(wrap(net()), scene(), symptom(), progress=False)


# ---- the result -----------------------------------------------------------------------------------------------------


def test_it_says_shows_and_saves_itself(tmp_path):
    found = ask(Reader(symptom()), scene(), symptom(), controls=99)
    assert repr(found).startswith("Evidence(evidence: ") and "p=0.0" in repr(found)
    words = found.sentence()
    for part in ("says class 0", "6 % of the picture", "moves by over 99 %", "99 cases", "this is evidence"):
        assert part in words, words
    assert found.table.column("fill") == ["mean", "blur", "noise", "mean", "worst"]
    assert len(found.control_table.rows) == 99
    facts = json.loads(found.save(tmp_path / "e.json").read_text())
    assert facts["verdict"] == "evidence" and facts["env"] == 0 and facts["receipt"]["verdict"] in ("pass", "told")
    assert (facts["sentence"], len(facts["controls"]["rows"])) == (words, 99)
    assert found.save(tmp_path / "e.csv").read_text().startswith("fill,Sym,Env,FE,p,")
    drawn = Image.open(found.save(tmp_path / "e.png"))
    assert drawn.size == found.picture().size and drawn.width > 800
    assert "data:image/png" in found._repr_html_()
    with pytest.raises(FileError, match=r"\.json, \.csv, \.png"):
        found.save(tmp_path / "e.txt")


def test_names_of_others_can_do_no_harm():
    labels = ["<b>\x1b[2J", "=1+1"]
    found = evidence(
        wrap(Reader(symptom()), labels=labels, preprocess=PIXELS), scene(), symptom(), controls=19, progress=False
    )
    assert "<b>" not in found._repr_html_() and "\x1b" not in found._repr_html_()
    assert visible(found.sentence()) != found.sentence() and found.picture().width > 100


@pytest.mark.parametrize("fills", ["mean", ("mean", "blur")])
def test_few_fills_are_told(fills):
    assert any("three or more" in note for note in ask(net(), scene(), symptom(), fills=fills).receipt.notes)
    assert not any("three or more" in note for note in ask(net(), scene(), symptom()).receipt.notes)


def test_the_network_is_left_as_it_was(untouched):
    module = net()
    with untouched(module), undrawn():
        ask(module, scene(), symptom())
        ask(module, scene(), "unit:1:0,2")
        with pytest.raises(SettingError):
            ask(module, scene(), "grid:4")
