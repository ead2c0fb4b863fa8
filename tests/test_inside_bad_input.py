"""Bad input of every function of the inside room: it works or says why, never with an error of torch or Python."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pellucid as pel
from inside_cases import FUNCTIONS, LAST, Small, call, inputs, small
from pellucid.core.errors import (
    FileError,
    ImageError,
    LayerError,
    MethodError,
    ModelError,
    PellucidError,
    SettingError,
    TargetError,
    TraceError,
)  # fmt: skip

NAN = float("nan")
ON = {kind: [n for n, f in FUNCTIONS.items() if f.takes == kind] for kind in ("image", "data")}
NAMED = {kind: [n for n, f in FUNCTIONS.items() if f.names == kind] for kind in ("layer", "unit")}
READS_ANY = {"receptive_fields", "maps"}  # numbers don't matter to the first; the second shows where NaN begins
COLOURS = pel.preprocess(resize_px=12, crop_px=12, mean=(0.5,) * 3, std=(0.25,) * 3)


def refused(kind: type[PellucidError], words: str, function: str, /, *given: Any, **settings: Any) -> None:
    """In plain words: what came, and no name of an exception of Python."""
    with pytest.raises(kind, match=words) as caught:
        call(function, *given, **settings)
    told = str(caught.value)
    assert len(told) < 500 and not any(word in told for word in ("Traceback", "KeyError", "IndexError"))


def worn(name: str, found: Any) -> None:
    """What was found can be shown."""
    for part in ("image", "sentence", "html"):
        if hasattr(found, part):
            assert getattr(found, part)() is not None, f"{name}.{part}"


@pytest.mark.parametrize("name", NAMED["layer"])
def test_an_unknown_layer(name):
    refused(LayerError, 'no layer "reluu2".*did you mean "relu2"', name, small(), None, name="reluu2")


@pytest.mark.parametrize("name", NAMED["unit"])
@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("reluu2:3", 'no layer "reluu2".*did you mean "relu2"'),
        ("relu2:6", 'no unit 6 in layer "relu2"; it has 6, from 0 to 5'),
        ("relu2:-1", 'unit "relu2:-1" came; write LAYER:CHANNEL'),
    ],
)
def test_an_unknown_unit(name, unit, words):
    refused(LayerError, words, name, small(), None, name=unit)


@pytest.mark.parametrize("name", [*NAMED["layer"], *NAMED["unit"]])
def test_a_layer_without_positions_works_or_says_why(name):
    why = {
        "densify": (LayerError, "has no maps"),
        "atlas": (LayerError, "has no maps"),
        "spatial_atlas": (LayerError, "has no maps"),
        "backprop_vis": (MethodError, "has no maps"),
        "ablation": (LayerError, '"fc" and "classes" are the same'),
        "followers": (LayerError, "feeds nothing that counts"),
    }
    asked = LAST if FUNCTIONS[name].names == "layer" else f"{LAST}:1"
    if name in why:
        refused(*why[name], name, small(), None, name=asked)
    else:
        found = call(name, small(), None, name=asked)
        worn(name, found)
        if name == "unit_card":
            assert set(found.missing) == {"followers", "ablation"}


def test_the_scores_as_a_layer_are_the_classes():
    found = call("influence_graph", small(), None, name=LAST)
    assert found.layers == ("relu1", "classes")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders with nothing, with text, with damaged pictures, and with these among good ones."""
    root = tmp_path_factory.mktemp("data")
    for name in ("empty", "text", "damaged", "mixed"):
        (root / name).mkdir()
    (root / "text" / "a.txt").write_text("no picture")
    for name in ("damaged", "mixed"):
        (root / name / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
        (root / name / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0abc")
    (root / "mixed" / "note.txt").write_text("no picture")
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "mixed" / f"good{number}.png")
    return root


def ready() -> Any:
    return pel.wrap(small(), preprocess=COLOURS)


@pytest.mark.parametrize("name", ON["data"])
def test_data_with_nothing_to_read(name, folders: Path):
    for given, words in (
        (folders / "empty", "no pictures in the folder"),
        (folders / "text", "no pictures in the folder"),
        (folders / "damaged", "damaged, truncated"),
        (folders / "nowhere", "there is no folder or file"),
        ([], "the data is empty"),
        (torch.zeros(0, 3, 12, 12), "the data is empty"),
        (7, "pictures can't be made from int"),
        (torch.zeros(4, 3, 12, 12, dtype=torch.int64), "give floating inputs"),
    ):
        refused(ImageError, words, name, ready(), given)


@pytest.mark.parametrize("name", ON["data"])
def test_damaged_pictures_among_good_ones_are_passed_over(name, folders: Path):
    data = pel.pictures(folders / "mixed", COLOURS)
    found = call(name, ready(), data)
    assert len(data) == 7 and set(data.failed) == {0, 1}
    worn(name, found)


@pytest.mark.parametrize("name", ON["image"])
def test_one_picture_that_is_none(name, folders: Path):
    cases = [
        (folders / "damaged" / "broken.png", "damaged, truncated"),
        (folders / "empty", "is a folder; give one picture"),
        (folders / "no.png", "there is no file"),
        (folders / "text" / "a.txt", "is not a picture"),
        (torch.rand(1, 12), "came"),
        (torch.rand(0, 3, 12, 12), "came"),
        (torch.zeros(1, 3, 12, 12, dtype=torch.int64), "floating inputs"),
    ]
    for given, words in cases:
        refused(ImageError, words, name, ready(), given)


@pytest.mark.parametrize("name", [n for n in ON["image"] if n not in ("receptive_fields", "weights")])
def test_noise_never_stands_for_a_picture_that_is_missing(name):
    with pytest.raises(ImageError, match=r"no picture came|can't be made from"):
        FUNCTIONS[name].run(ready(), None, **({"progress": False} if FUNCTIONS[name].work else {}))


@pytest.mark.parametrize("name", ["maps", "project", "invert", "dream", "spatial_atlas", "backprop_vis"])
def test_several_inputs_where_one_is_asked_for(name):
    with pytest.raises((ImageError, SettingError), match="4"):
        call(name, small(), inputs(4))


@pytest.mark.parametrize("name", [*ON["image"], *ON["data"]])
def test_a_picture_smaller_than_the_field(name):
    count = 1 if FUNCTIONS[name].takes == "image" else 4
    worn(name, call(name, small(), inputs(count, size=4)))
    refused(TraceError, "Output size is too small", name, small(), inputs(count, size=1))


@pytest.mark.parametrize("channels", [1, 12])
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_other_numbers_of_channels(name, channels):
    function, net = FUNCTIONS[name], small(channels)
    if not function.takes:
        found = call(name, net, image=inputs(1, channels))
    else:
        found = call(name, net, inputs(1 if function.takes == "image" else 6, channels))
    worn(name, found)
    assert name != "unit_card" or not found.missing


@pytest.mark.parametrize("name", [*ON["image"], *ON["data"]])
def test_a_wrong_number_of_channels_is_told(name):
    given = inputs(1 if FUNCTIONS[name].takes == "image" else 4, channels=1)
    with pytest.raises((ModelError, SettingError), match=r"3 channels.* has 1|expected .*3"):
        call(name, small(), given)


class Fixed(Small):
    """A head that takes one size."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(6 * 36, 3)

    def forward(self, x):
        x = self.pool(self.relu1(self.bn1(self.conv1(x))))
        return self.fc(self.relu2(self.bn2(self.conv2(x))).flatten(1))


@pytest.mark.parametrize("name", [*ON["data"], "maps", "optimise"])
def test_pictures_of_several_sizes_or_channels(name):
    """Each works, or is told; a network without a size of its own takes them all."""
    sizes = [torch.rand(3, side, side) for side in (12, 12, 8, 12)]
    words = {"data": sizes} if name in ("maps", "optimise") else {}
    worn(name, call(name, small(), *([] if words else [sizes]), **words))
    for net, given in (
        (Fixed().eval(), sizes),
        (small(), [torch.rand(c, 12, 12) for c in (3, 3, 1, 3)]),
        (small(), [torch.rand(3, side, side) for side in (12, 1, 12)]),
    ):
        try:
            words = {"data": given} if name in ("maps", "optimise") else {}
            call(name, net, *([] if words else [given]), **words)
        except (ModelError, TraceError) as error:
            assert "came" in str(error) or "could not take" in str(error) or "channels" in str(error)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_a_network_in_training_mode_is_told_and_stays_so(name):
    net = small().train()
    refused(TraceError, r"batch statistics is active in layer \"bn1\".*eval", name, net)
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize("name", [*ON["image"], *ON["data"]])
def test_pictures_for_a_network_whose_preprocessing_is_not_known(name):
    picture = np.zeros((20, 20, 3), np.uint8)
    given = picture if FUNCTIONS[name].takes == "image" else [picture, picture]
    refused(ModelError, "wants its pictures is not known", name, small(), given)


@pytest.mark.parametrize("bad", [NAN, float("inf")])
@pytest.mark.parametrize("name", [n for n in ON["image"] if n not in READS_ANY])
def test_a_picture_with_numbers_that_are_not_finite(name, bad):
    with pytest.raises(PellucidError, match=r"not finite|is nan there"):
        call(name, small(), torch.full((1, 3, 12, 12), bad))


@pytest.mark.parametrize("name", ON["data"])
def test_data_with_numbers_that_are_not_finite(name):
    given = inputs(6)
    given[2, 0, 3, 3] = NAN
    data = pel.pictures(given, None)
    worn(name, call(name, small(), data))
    assert set(data.failed) == {2} and "not finite" in data.failed[2]
    refused(ImageError, "not finite", name, small(), torch.full((3, 3, 12, 12), NAN))


@pytest.mark.parametrize(
    "name", ["coupling_matrix", "feeders", "followers", "influence_graph", "ablation", "layer_coupling"]
)
def test_numbers_that_stop_being_finite_on_the_way(name):
    net = small()
    net.conv2.weight.data[:, 0, 0, 0] = float("inf")
    refused(MethodError, "is not finite: Small makes NaN", name, net)


SETTINGS: dict[str, list[dict[str, Any]]] = {
    "maps": [{"target": 99}, {"target": "cat"}, {"data": []}, {"data": torch.rand(2, 1, 12, 12)}],
    "effective_field": [{"samples": 0}, {"position": (9, 9)}, {"position": (1,)}],
    "rfm": [
        {"samples": 0}, {"signal": "x"}, {"border": "x"}, {"cell_px": 0, "signal": "occlusion"}, {"source": "nope"},
        {"whiten": True},
    ],
    "coupling": [{"samples": 0}, {"units": [9]}, {"units": []}],
    "exemplars": [
        {"top": -1}, {"bottom": -1}, {"random": -1}, {"quantile_bins": -1}, {"batch": 0}, {"limit": 0}, {"units": 99},
        {"resume": "/nowhere/x.safetensors"}, {"resume": "x.txt"},
    ],
    "project": [{"rules": "x"}, {"position": (9, 9)}, {"position": (1,)}, {"position": "some"}],
    "project_top": [{"count": 0}, {"rules": "x"}],
    "optimise": [
        {"steps": 0}, {"count": 0}, {"size_px": 1}, {"learning_rate": 0}, {"learning_rate": NAN}, {"transforms": "x"},
        {"parametrisation": "x"}, {"colour": np.zeros((3, 3))}, {"colour": np.zeros((2, 2))}, {"colour": "red"},
        {"start": "/nowhere.png"}, {"data": []},
    ],
    "class_image": [
        {"steps": 0}, {"weight_decay": -1}, {"blur_px": -1}, {"blur_every": 0}, {"name": 99}, {"name": "cat"},
    ],
    "invert": [{"steps": 0}, {"count": 0}, {"smoothness": -1}, {"smoothness": NAN}, {"parametrisation": "maco"}],
    "caricature": [{"steps": 0}, {"cosine_power": -1}, {"cosine_power": NAN}],
    "dream": [
        {"steps": -1}, {"octaves": 0}, {"octave_scale": 1}, {"step_size": -1}, {"step_size": NAN}, {"jitter_px": -1},
        {"tile_px": 0}, {"channel": 99}, {"channel": -1}, {"guide": "/nowhere.png"}, {"guide": inputs(2)},
    ],
    "densify": [{"factor": 0}, {"factor": 3}, {"start": "nope"}, {"start": "fc"}, {"factor": 2, "start": "pool"}],
    "atlas": [
        {"grid": 0}, {"layout": "x"}, {"class_": 99}, {"class_": "cat"}, {"samples": 0}, {"least": 0}, {"least": 99},
        {"icon_px": 0}, {"steps": 0},
    ],
    "spatial_atlas": [{"every": 0}, {"factor": 0}, {"factor": 7}, {"icon_px": 0}, {"steps": 0}],
    "backprop_vis": [{"target": 99}, {"target": [0, 1]}, {"cam": "saliency"}, {"backprop": "x"}],
    "ablation": [{"name": []}],
    "coupling_matrix": [
        {"how": "relevance", "composite": "x"}, {"how": "deep_lift", "baseline": "x"}, {"fill": "x"}, {"clusters": 0},
        {"name": "conv1"}, {"groups": ([0], [0])},
    ],
    "layer_coupling": [{"composite": "x"}, {"name": "relu1"}],
    "influence_graph": [{"top": 0}, {"units": 0}, {"baseline": "x"}],
    "feeders": [{"count": 0}, {"source": "fc"}, {"source": "nope"}, {"fill": "x"}],
    "followers": [{"count": 0}, {"target": "conv1"}, {"target": "nope"}],
    "stdp_probe": [{"passes": 0}, {"name": "relu2"}, {"name": "bn2"}],
    "unit_card": [{"parts": ["x"]}, {"top": 0}, {"steps": 0}, {"samples": 0}, {"seed": -1}],
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_out_of_range(name):
    for given in SETTINGS[name]:
        with pytest.raises((SettingError, LayerError, TargetError, ImageError, ModelError, FileError)) as caught:
            call(name, small(), **given)
        assert len(str(caught.value)) > 20, given


@pytest.mark.parametrize("name", [n for n, f in FUNCTIONS.items() if f.draws])
def test_a_seed_below_zero_works_or_is_refused(name):
    try:
        call(name, small(), seed=-1)
    except SettingError as error:
        assert "seed=-1 came; use a whole number from 0" in str(error)


def test_a_unit_card_of_tensors():
    found = call("unit_card", small())
    assert not found.missing and len(found.sentence()) > 100
    worn("unit_card", found)
