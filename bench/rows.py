"""The rows of the table: what is measured, and who does it."""

from fnmatch import fnmatch
from typing import Any

import peers
import whatif
import within
from nets import Network
from peers import Contender
from torch import Tensor
from work import Row, Target

STEPS, SAMPLES, DRAWS = 50, 25, 64
NOISE, SHAP_NOISE = 0.15, 0.09


SINGLE = Target(times=1.10, beats_peers=True)
SAMPLED = Target(times=1.05, extra_mb=400.0)
BEST = "FB at the best batch"


def _single(method: str, *others: Contender, ideal: str = "FB", reference: str | None = None) -> Row:
    return Row(method, "single", {ideal: 1}, SINGLE, (peers.pellucid(method), *others), reference)


def _gradients() -> list[Row]:
    hooked = "module hooks miss ReLU6 and functions"
    return [
        _single("saliency", peers.captum("Saliency", abs_off=True), peers.zennit("Gradient"), reference="FB"),
        _single("gradient_x_input", peers.captum("InputXGradient"), peers.zennit("Gradient", times_input=True)),
        _single(
            "guided_backprop",
            peers.captum("GuidedBackprop", hooked),
            peers.grad_cam_guided(),
            peers.zennit("Gradient", hooked, "GuidedBackprop"),
        ),
        _single("deconvnet", peers.captum("Deconvolution", hooked), peers.zennit("Gradient", hooked, "DeconvNet")),
    ]


def _cams() -> list[Row]:
    plus = "torchcam divides a copy: its weights are Σ G² ReLU(G)"
    centred = "grad-cam centres the activations, the paper does not"
    return [
        _single("cam", peers.torchcam_cam(), ideal="FL"),
        _single("grad_cam", peers.captum_grad_cam(), peers.grad_cam("GradCAM"), peers.torchcam("GradCAM"), ideal="FL"),
        _single(
            "grad_cam_plus_plus",
            peers.grad_cam("GradCAMPlusPlus", "grad-cam adds 1e-6 below the fraction"),
            peers.torchcam("GradCAMpp", plus),
            ideal="FL",
        ),
        _single(
            "xgrad_cam",
            peers.grad_cam("XGradCAM", "grad-cam adds 1e-7 below the fraction"),
            peers.torchcam("XGradCAM", "torchcam adds 1e-8 below the fraction"),
            ideal="FL",
        ),
        _single("hires_cam", peers.grad_cam("HiResCAM"), ideal="FL"),
        _single("layer_cam", peers.grad_cam("LayerCAM"), peers.torchcam("LayerCAM"), ideal="FL"),
        _single("eigen_cam", peers.grad_cam("EigenCAM", centred), ideal="F"),
        _single("eigen_grad_cam", peers.grad_cam("EigenGradCAM", centred), ideal="FL"),
    ]


def _others() -> list[Row]:
    guided = peers.captum_guided_grad_cam("module hooks miss ReLU6 and functions")
    return [
        Row("guided_grad_cam", "single", {"FB": 1, "L": 1}, SINGLE, (peers.pellucid("guided_grad_cam"), guided)),
        _single("fullgrad", peers.grad_cam_full()),
    ]


def _sampled() -> list[Row]:
    rows = []
    for method, kind in (("smoothgrad", "smoothgrad"), ("smoothgrad_squared", "smoothgrad_sq"), ("vargrad", "vargrad")):
        noisy = [peers.captum_noise(kind, SAMPLES, NOISE, tuned) for tuned in (False, True)]
        if method == "smoothgrad":
            noisy.append(peers.zennit("SmoothGrad", "other random numbers", noise_level=NOISE, n_iter=SAMPLES))
        mine = peers.pellucid(method, samples=SAMPLES, noise_fraction=NOISE)
        rows.append(Row(method, "sampled", {BEST: SAMPLES}, SAMPLED, (mine, *noisy), calls=1))
    integrated = (
        peers.pellucid("integrated_gradients", steps=STEPS, baseline="zero"),
        peers.captum_integrated_gradients(STEPS, tuned=False),
        peers.captum_integrated_gradients(STEPS, tuned=True),
        peers.zennit("IntegratedGradients", "right-hand sums, not Gauss-Legendre", n_iter=STEPS),
    )
    rows.append(Row("integrated_gradients", "sampled", {BEST: STEPS}, SAMPLED, integrated, calls=1))
    for method, noise in (("expected_gradients", 0.0), ("gradient_shap", SHAP_NOISE)):
        words: dict[str, Any] = {"samples": DRAWS, "baseline": lambda net: list(net.starts.split(1))}
        if noise:
            words["noise_fraction"] = noise
        both = (peers.pellucid(method, **words), peers.captum_gradient_shap(DRAWS, noise))
        rows.append(Row(method, "sampled", {BEST: DRAWS}, SAMPLED, both, calls=1))
    return rows


COMPOSITE = Target(times=2.0, beats_peers=True)


def _relevance() -> list[Row]:
    """LRP and DeepLIFT; the other libraries see modules only, so residual sums, gates and BatchNorm get a gradient."""
    unmerged = "module hooks: BatchNorm is not merged, sums are not split"
    hooked = peers.captum("DeepLift", "reused and functional layers are missed")
    return [
        Row(
            f"lrp {ours}", "relevance", {"FB": 1}, COMPOSITE,
            (peers.pellucid("lrp", composite=ours, start="one"), peers.zennit("Gradient", unmerged, theirs)),
        )
        for ours, theirs in (("epsilon_plus", "EpsilonPlus"), ("epsilon_alpha2_beta1", "EpsilonAlpha2Beta1"))
    ] + [
        Row(
            "deep_lift", "relevance", {"FB": 2}, Target(beats_peers=True),
            (peers.pellucid("deep_lift", baseline="zero"), hooked),
        )
    ]  # fmt: skip


PANEL = (
    "saliency gradient_x_input guided_backprop deconvnet grad_cam grad_cam_plus_plus xgrad_cam hires_cam layer_cam "
    "eigen_cam eigen_grad_cam guided_grad_cam"
).split()


def _attribute(**words: Any) -> Contender:
    def run(net: Network) -> None:
        import pellucid as pel

        pel.attribute(net.module, net.x, **{"targets": net.target, "layers": net.layer, **words})

    return Contender("pellucid", run)


def _shared() -> list[Row]:
    """Many maps or many classes from one recording."""
    work = {row.name: row.contenders[1:] for row in (*_gradients(), *_cams(), *_others())}
    quick = {name: next((c for c in work[name] if c.library == "torchcam"), work[name][0]) for name in PANEL}
    each = peers.one_after_the_other("captum + torchcam + grad-cam", list(quick.items()))
    panel = Row("panel of 12 maps", "shared", {"FB": 1}, Target(times=3.5), (_attribute(methods=PANEL), each))
    rows = [panel]
    for method, ideal, times in (("saliency", {"F": 1, "B": 5}, 1.0), ("grad_cam", {"F": 1, "L": 5}, 1.1)):
        five = peers.one_after_the_other("captum", [(f"class {k}", work[method][0]) for k in range(5)])
        mine = _attribute(methods=method, targets="top5")
        rows.append(Row(f"{method} of the top 5 classes", "shared", ideal, Target(times=times), (mine, five)))
    return rows


def _engine() -> list[Row]:
    def record(net: Network) -> Tensor:
        import pellucid as pel

        return pel.record(net.module, net.x).scores

    def pull(net: Network) -> Tensor:
        import pellucid as pel

        if "recording" not in net.memo:
            net.memo["recording"] = pel.record(net.module, net.x)
        trace = net.memo["recording"]
        return trace.pull(pel.logit(net.target).seeds(trace)).input()

    return [
        Row("record alone", "engine", {"F": 1}, Target(), (Contender("pellucid", record),), "F"),
        Row("grad_cam with layer chosen", "engine", {"FL": 1}, SINGLE, (_attribute(methods="grad_cam", layers=None),)),
        Row("pull alone", "engine", {"B": 1}, Target(), (Contender("pellucid", pull),), "FB"),
    ]


_FAMILIES = (_gradients, _cams, _others, _sampled, _relevance, _shared, _engine, whatif.rows, within.rows)
_ALL = [row for family in _FAMILIES for row in family()]
ROWS: dict[str, Row] = {r.name: r for r in _ALL}
STARTUP = ("import pellucid", "pellucid --help")
GROUPS = ("single", "sampled", "relevance", "whatif", "inside", "shared", "engine", "startup")


def chosen(words: str) -> tuple[list[Row], bool]:
    """Rows by name, pattern (`*cam*`) or group, separated by commas; and whether start-up times are among them."""
    asked = [w.strip() for w in words.split(",") if w.strip()]
    rows = [r for r in ROWS.values() if any(w in ("all", r.group) or fnmatch(r.name, w) for w in asked)]
    startup = any(w in ("all", "startup") for w in asked)
    unknown = [w for w in asked if w not in ("all", *GROUPS) and not any(fnmatch(n, w) for n in ROWS)]
    if unknown:
        raise SystemExit(f"no row {unknown[0]!r}; groups: {', '.join(GROUPS)}; rows: {', '.join(ROWS)}")
    return rows, startup
