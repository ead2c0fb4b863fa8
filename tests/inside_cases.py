"""Every public function of the inside room in one line each, with little work, for tests of what they share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import pellucid as pel
from networks.common import seeded

LAYER, UNIT, LAST = "relu2", "relu2:3", "fc"
Run = Callable[..., Any]


class Small(nn.Module):
    """BatchNorm and one rectifier, in place, for two layers; a sum, a pool, a linear layer."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu1, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.relu2, self.fc = nn.ReLU(inplace=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.bn1(self.conv1(x))))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


def small(channels: int = 3) -> Small:
    net = seeded(lambda: Small(channels))().eval()
    with torch.no_grad():
        for norm in (net.bn1, net.bn2):
            norm.running_mean.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
            norm.running_var.fill_(0.7)
            norm.bias.fill_(0.1)
    return net


def inputs(count: int = 6, channels: int = 3, size: int = 12) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Function:
    """What a function takes: one picture or many, a layer or a unit; and a short run of it."""

    run: Run
    takes: str  # "image", "data", or "" where it needs neither
    names: str  # "layer", "unit", "class", or ""
    work: bool = True  # reports to a progress
    draws: bool = False  # takes a seed


def _project_top(model: Any, data: Any, name: str = UNIT, **words: Any) -> Any:
    count = words.pop("count", 2)
    found = pel.exemplars(model, data, units=name, top=2, progress=False)
    return pel.project_top(model, found, name, count, **words)


def _objective(model: Any, name: str = UNIT, **words: Any) -> Any:
    return pel.optimise(model, name, **{"steps": 3, "image": inputs(1), **words})


def _class_image(model: Any, name: Any = 1, **words: Any) -> Any:
    return pel.class_image(model, name, **{"steps": 4, "image": inputs(1), **words})


def _steps(function: Callable[..., Any]) -> Run:
    return lambda model, given, name=LAYER, **words: function(model, given, name, **{"steps": 3, **words})


def _atlas(model: Any, data: Any, name: str | None = LAYER, **words: Any) -> Any:
    small = {"grid": 2, "layout": "pca", "least": 1, "steps": 2, "icon_px": 12}
    return pel.atlas(model, data, name, **{**small, **words})


def _dream(model: Any, image: Any, name: str | None = LAYER, **words: Any) -> Any:
    return pel.dream(model, image, layer=name, **{"octaves": 2, "steps": 2, "jitter_px": 2, **words})


def _card(model: Any, data: Any, name: str = UNIT, **words: Any) -> Any:
    return pel.unit_card(model, name, data, **{"steps": 2, "samples": 4, "top": 2, **words})


FUNCTIONS: dict[str, Function] = {
    "maps": Function(lambda m, x, name=LAYER, **w: pel.maps(m, x, name, **w), "image", "layer"),
    "receptive_fields": Function(
        lambda m, x, name=LAYER: (found := pel.receptive_fields(m, x), found.of(name))[0], "image", "layer", work=False
    ),
    "effective_field": Function(
        lambda m, x, name=UNIT, **w: pel.effective_field(m, name, x, **w), "data", "unit", draws=True
    ),
    "rfm": Function(lambda m, x, name=UNIT, **w: pel.rfm(m, name, x, **w), "data", "unit", draws=True),
    "coupling": Function(
        lambda m, x, name=LAYER, **w: pel.coupling(m, "conv1", name, x, **{"samples": 20, **w}),
        "data",
        "layer",
        draws=True,
    ),
    "exemplars": Function(
        lambda m, x, name=LAYER, **w: pel.exemplars(m, x, layers=name, **{"random": 2, **w}),
        "data",
        "layer",
        draws=True,
    ),
    "project": Function(lambda m, x, name=UNIT, **w: pel.project(m, x, name, **w), "image", "unit", work=False),
    "project_top": Function(_project_top, "data", "unit", work=False),
    "optimise": Function(_objective, "", "unit", draws=True),
    "class_image": Function(_class_image, "", "class"),
    "invert": Function(_steps(pel.invert), "image", "layer", draws=True),
    "caricature": Function(_steps(pel.caricature), "image", "layer", draws=True),
    "dream": Function(_dream, "image", "layer", draws=True),
    "densify": Function(lambda m, x, name=LAYER, **w: pel.densify(m, x, name, **w), "image", "layer"),
    "atlas": Function(_atlas, "data", "layer", draws=True),
    "spatial_atlas": Function(
        lambda m, x, name=LAYER, **w: pel.spatial_atlas(m, x, name, **{"every": 4, "steps": 2, "icon_px": 12, **w}),
        "image",
        "layer",
        draws=True,
    ),
    "weights": Function(lambda m, x, name="conv2", **w: pel.weights(m, name, x, **w), "image", "layer"),
    "backprop_vis": Function(
        lambda m, x, name=LAYER, **w: pel.backprop_vis(m, x, layer=name, **{"channels": 2, **w}),
        "image",
        "layer",
        draws=True,
    ),
    "ablation": Function(lambda m, x, name=LAYER, **w: pel.ablation(m, name, x, **w), "data", "layer"),
    "coupling_matrix": Function(
        lambda m, x, name=LAYER, **w: pel.coupling_matrix(m, "relu1", name, x, **w), "data", "layer", draws=True
    ),
    "layer_coupling": Function(
        lambda m, x, name=LAYER, **w: pel.layer_coupling(m, ["relu1", name], x, **w), "data", "layer"
    ),
    "influence_graph": Function(
        lambda m, x, name=LAYER, **w: pel.influence_graph(m, ["relu1", name], x, **w), "data", "layer"
    ),
    "feeders": Function(lambda m, x, name=UNIT, **w: pel.feeders(m, name, x, **w), "data", "unit"),
    "followers": Function(lambda m, x, name=UNIT, **w: pel.followers(m, name, x, **w), "data", "unit"),
    "stdp_probe": Function(lambda m, x, name="conv2", **w: pel.stdp_probe(m, name, x, **w), "data", "layer"),
    "unit_card": Function(_card, "data", "unit", draws=True),
}


def call(function: str, model: Any, given: Any = None, /, **words: Any) -> Any:
    """One run; what it takes is made where nothing is given; no bar is drawn."""
    chosen = FUNCTIONS[function]
    if chosen.work:
        words = {"progress": False, **words}
    if not chosen.takes:
        return chosen.run(model, **words)
    count = 1 if chosen.takes == "image" else 6
    return chosen.run(model, inputs(count) if given is None else given, **words)
