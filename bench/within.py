"""Rows about layers and units: pictures that a unit would like, and the pictures of a data set that excite it."""

from typing import Any

import torch
from nets import SIDE_PX, Network
from peers import Contender
from work import Row, Target

CHANNEL = 5
STEPS, PICTURES = 32, 128
EARLY = {"resnet18": "layer1", "mobilenet_v2": "features.3", "vgg16": "features.8", "squeezenet1_1": "features.4"}
SCAN = Target(times=1 / 0.9, extra_mb=400.0)


def rows() -> list[Row]:
    picture = Row(
        "optimised picture", "inside", {"FB": STEPS}, Target(times=1.15, beats_peers=True),
        (_optimise(), _lucent()), calls=1, long=True,
    )  # fmt: skip
    scans = [
        _scan("exemplars of the last layer with maps", lambda net: [net.layer]),
        _scan("exemplars of two layers", lambda net: [EARLY[net.name], net.layer]),
    ]
    return [picture, *scans]


def _optimise() -> Contender:
    def run(net: Network) -> None:
        import pellucid as pel

        pel.optimise(net.module, f"{net.layer}:{CHANNEL}", image=net.x, steps=STEPS, progress=False)

    return Contender("pellucid", run)


def _lucent() -> Contender:
    """`render_vis` with its standard transforms, which sees its layers through hooks that it never removes."""

    def run(net: Network) -> None:
        from lucent.optvis import render

        name = net.layer.replace(".", "_")
        words = {"show_image": False, "progress": False, "verbose": False, "fixed_image_size": SIDE_PX}
        render.render_vis(net.spare, f"{name}:{CHANNEL}", thresholds=(STEPS,), **words)

    return Contender("torch-lucent", run, differs="other random numbers")


def _scan(name: str, layers: Any) -> Row:
    """Against the bare forward of the whole network over the same pictures, at its best batch."""

    def run(net: Network) -> None:
        import pellucid as pel

        pel.exemplars(net.module, _pictures(net), layers=layers(net), progress=False)

    return Row(
        name, "inside", {"F at the best batch": PICTURES}, SCAN, (Contender("pellucid", run),), calls=1, long=True
    )


def _pictures(net: Network) -> torch.Tensor:
    if "pictures" not in net.memo:
        noise = torch.randn(PICTURES, *net.x.shape[1:], generator=torch.Generator().manual_seed(0))
        net.memo["pictures"] = net.x + 0.5 * noise.to(net.x)
    return net.memo["pictures"]
