"""Rows of methods that cover, mask or switch off and ask the network again."""

from typing import Any

import asking
import peers
from work import Row, Target

WINDOW_PX, STRIDE_PX, WINDOWS = 16, 8, 27 * 27
SAMPLES = 200
BEST, FOLDED = "F at the best batch", "folded F at the best batch"
MEMORY_MB = 400.0
ASKED = Target(times=1.05, extra_mb=MEMORY_MB)
GRID = {"regions": f"grid:{asking.ACROSS**2}", "fill": "zero", "samples": SAMPLES}
SLIC = {**GRID, "regions": f"slic:{asking.ACROSS**2}"}


def rows() -> list[Row]:
    return [*_covering(), *_channels(), *_sampled(), *_book_keeping()]


def _covering() -> list[Row]:
    mine = peers.pellucid("occlusion", window_px=WINDOW_PX, stride_px=STRIDE_PX, fill="zero")
    target = Target(extra_mb=MEMORY_MB, times_on={"vgg16": 1 / 6, "resnet18": 1 / 2})
    both = (mine, asking.captum_occlusion(WINDOW_PX, STRIDE_PX))
    return [_long(f"occlusion {WINDOW_PX}/{STRIDE_PX}", {FOLDED: WINDOWS}, target, *both)]


def _channels() -> list[Row]:
    corners = "grad-cam enlarges with the corners aligned"
    stretched = "torchcam stretches a channel to 0..1 before it is enlarged, not after"
    divided = "grad-cam divides by the score, not by its size"
    return [
        _long(
            "ablation_cam", {"F": 1}, Target(times=3.0, extra_mb=MEMORY_MB),
            peers.pellucid("ablation_cam"), asking.grad_cam_replayed("AblationCAM", divided, 32),
        ),
        _long(
            "score_cam", {BEST: asking.channels(plus=1)}, ASKED,
            peers.pellucid("score_cam"), asking.grad_cam_replayed("ScoreCAM", corners),
            peers.torchcam("ScoreCAM", stretched),
        ),
    ]  # fmt: skip


def _sampled() -> list[Row]:
    """The same grid, zeros and number of samples for all; SLIC is each library's own."""
    ideal = {BEST: SAMPLES}
    lime, kernel = asking.captum_regions("Lime", SAMPLES), asking.captum_regions("KernelShap", SAMPLES)
    return [
        _long("lime", ideal, ASKED, peers.pellucid("lime", **GRID), lime, asking.lime_package(SAMPLES)),
        _long("lime on SLIC", ideal, ASKED, peers.pellucid("lime", **SLIC), asking.lime_package(SAMPLES, slic=True)),
        _long(
            "shap", ideal, ASKED,
            peers.pellucid("shap", kind="kernel", **GRID), kernel, asking.shap_package(SAMPLES),
        ),
        _long("rise", ideal, ASKED, peers.pellucid("rise", samples=SAMPLES, fill="zero")),
    ]  # fmt: skip


def _book_keeping() -> list[Row]:
    """What is left when the network costs next to nothing, in units of what the real one would have cost."""
    work: dict[str, tuple[str, dict[str, Any]]] = {
        "lime": ("lime", GRID),
        "lime on SLIC": ("lime", SLIC),
        "shap": ("shap", {"kind": "kernel", **GRID}),
        "rise": ("rise", {"samples": SAMPLES, "fill": "zero"}),
    }
    target = Target(times=0.02, extra_mb=MEMORY_MB)
    return [
        _long(f"{name}: book-keeping", {BEST: SAMPLES}, target, asking.pellucid_idle(method, **settings))
        for name, (method, settings) in work.items()
    ]


def _long(name: str, ideal: Any, target: Target, *contenders: peers.Contender) -> Row:
    return Row(name, "whatif", ideal, target, contenders, calls=1, long=True)
