"""Model, wrap, labels and preprocessing from files, and the check of the channel count."""

import inspect
import json
import random

import pytest
import torch
from torch import nn

from pellucid.core.errors import ModelError, TargetError
from pellucid.images.transforms import Preprocess
from pellucid.models import Model, check_input, wrap
from pellucid.models.model import read_labels, read_preprocess

unchecked_wrap = inspect.unwrap(wrap)  # without the type checker of the tests, as users have it


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


def test_wrap_leaves_the_module_alone(untouched):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()).train()
    drawn = random.getstate()
    with untouched(module):
        model = wrap(module)
        repr(model), model.label(1)
        random.setstate(drawn)  # the type checker of the tests draws which items of a container it looks at
    assert model.module is module
    assert module.training
    assert "training mode" in " ".join(model.notes)


def test_wrap_names_what_nobody_gave():
    model = wrap(net().eval())
    assert model.name == "Sequential"
    assert len(model.notes) == 2
    assert "labels=" in model.notes[0]
    assert "preprocess=" in model.notes[1]
    given = wrap(net().eval(), labels=["x"], preprocess=Preprocess(), name="mine")
    assert given.notes == ()
    assert given.name == "mine"


@pytest.mark.parametrize("wrong", [nn.ReLU, lambda x: x, "resnet50", None])
def test_wrap_refuses_what_is_no_module(wrong):
    with pytest.raises(ModelError, match=r"torch\.nn\.Module"):
        unchecked_wrap(wrong)


def test_calling_a_model_calls_its_module():
    module = nn.Conv2d(3, 4, 1)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(wrap(module)(x), module(x))


def test_repr_is_short_and_informative():
    model = wrap(net(), labels=["a", "b", "c"], preprocess=Preprocess(resize_px=40, crop_px=32), name="mine")
    assert repr(model) == 'Model("mine", 3 labels, input 32×32 px)'
    assert repr(wrap(net(), name="bare")) == 'Model("bare", no labels, no preprocessing)'


def labelled() -> Model:
    labels = ["tench, Tinca tinca", "crane", "Egyptian cat", "crane", "tiger cat", "dome"]
    return wrap(nn.Identity(), labels=labels, name="six")


def test_a_label_has_a_number_and_back():
    model = labelled()
    assert [model.label(i) for i in (0, 5)] == ["tench, Tinca tinca", "dome"]
    assert wrap(nn.Identity()).label(7) == "class 7"
    for text, index in [("DOME", 5), ("tinca tinca", 0), ("tench", 0), (" tiger cat ", 4), ("egypt", 2), ("tiger", 4)]:
        assert model.index(text) == index


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crane", '1 "crane", 3 "crane"'),
        ("cat", '2 "Egyptian cat", 4 "tiger cat"'),
        ("domme", '"dome"'),
        ("", "class number"),
    ],
)
def test_an_unclear_label_is_told(text, said):
    with pytest.raises(TargetError) as told:
        labelled().index(text)
    assert said in str(told.value)


def test_a_number_without_a_label_is_told():
    with pytest.raises(TargetError, match="0 to 5"):
        labelled().label(6)
    with pytest.raises(TargetError, match="counts classes from 0"):
        wrap(nn.Identity()).label(-1)
    with pytest.raises(TargetError, match="has no labels"):
        wrap(nn.Identity()).index("cat")


def test_labels_come_in_five_forms(tmp_path):
    (tmp_path / "a.txt").write_text("cat\r\nhound dog\nÄffchen\n", encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(["cat", "hound dog", "Äffchen"]))
    (tmp_path / "c.json").write_text(json.dumps({"1": "hound dog", "0": "cat", "2": "Äffchen"}))
    expected = ("cat", "hound dog", "Äffchen")
    forms = (list(expected), {2: "Äffchen", 0: "cat", 1: "hound dog"}, str(tmp_path / "a.txt"), tmp_path / "b.json")
    for source in (*forms, tmp_path / "c.json"):
        assert read_labels(source) == expected
    assert read_labels(None) is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"0": "cat", "2": "dog"}', "class 1 has no name"),
        ("a.json", '{"cat": "0"}', "class numbers as keys"),
        ("a.json", "[1, 2]", "class names"),
        ("a.json", "[]", "class names"),
        ("a.json", "{", "not JSON"),
        ("a.txt", "", "class names"),
        ("a.csv", "cat", r"\.txt"),
        ("b.txt", None, "can't be read"),
    ],
)
def test_labels_that_make_no_sense_are_told(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=said):
        read_labels(tmp_path / name)


def test_preprocessing_comes_from_a_file(tmp_path):
    wanted = Preprocess(resize_px=(40, 50), crop_px=32, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    (tmp_path / "p.json").write_text(json.dumps(wanted.to_json()))
    assert read_preprocess(tmp_path / "p.json") == wanted
    assert read_preprocess(wanted) is wanted
    for text in ('{"size": 3}', "[]", "3", '{"crop_px": "wide"}'):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(ModelError, match="does not describe a preprocessing"):
            read_preprocess(tmp_path / "p.json")


def test_a_wrong_channel_count_is_told():
    model = wrap(net(), name="mine")
    with pytest.raises(ModelError, match=r'mine takes 3 channels \("0"\), but the input has 1; set channels=3'):
        check_input(model, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ModelError, match="has 4"):
        check_input(model, torch.zeros(4, 8, 8))
    check_input(model, torch.zeros(1, 3, 8, 8))
    with pytest.raises(ModelError, match="give an input with 5 channels"):
        check_input(wrap(nn.Conv3d(5, 4, 3)), torch.zeros(1, 2, 8, 8, 8))


def test_the_check_is_silent_where_it_can_not_know():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early = nn.Conv2d(8, 3, 1), nn.Conv2d(1, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.late(self.early(x))

    check_input(wrap(Mixed()), torch.zeros(1, 1, 8, 8))
    check_input(wrap(nn.Sequential(nn.Linear(4, 3), nn.Conv2d(3, 3, 1))), torch.zeros(1, 7, 8, 8))
    check_input(wrap(nn.LazyConv2d(3, 1)), torch.zeros(1, 7, 8, 8))
    check_input(wrap(nn.ReLU()), torch.zeros(1, 7, 8, 8))
    check_input(wrap(net()), torch.zeros(7, 64))
