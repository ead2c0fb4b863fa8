"""BackpropVis's map: any class activation map as a gate in front of any map that was walked back to the input (A13)."""

from dataclasses import replace
from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor

from pellucid.core.trace import Trace
from pellucid.methods.cams import gate, layer_doctor
from pellucid.methods.case import Case
from pellucid.methods.gradients import rectifier_doctor
from pellucid.methods.registry import METHODS, Verdict, method

Cam = Literal[
    "grad_cam",
    "grad_cam_plus_plus",
    "xgrad_cam",
    "hires_cam",
    "layer_cam",
    "eigen_cam",
    "eigen_grad_cam",
    "score_cam",
    "ablation_cam",
    "lrp_layer",
    "cam",
]
Backprop = Literal[
    "guided_backprop",
    "saliency",
    "gradient_x_input",
    "deconvnet",
    "smoothgrad",
    "integrated_gradients",
    "deep_lift",
    "lrp",
    "deep_taylor",
    "excitation_backprop",
]


def _gate_doctor(trace: Trace) -> Verdict:
    layer, rectifiers = layer_doctor(trace), rectifier_doctor("guided")(trace)
    worst = next((v for fit in ("impossible", "approximate") for v in (layer, rectifiers) if v.fit == fit), rectifiers)
    return worst


@method(
    "gated_backprop",
    title="Gated backprop",
    site="input",
    units="no unit; compare places, not sizes",
    source="Selvaraju et al. 2017, arXiv:1610.02391, section 3.2, with any pair of maps",
    misleads="when fine detail is read as the class's: the gate knows the class, guided backprop hardly does",
    doctor=_gate_doctor,
    layered=True,
)
def gated_backprop(
    case: Case,
    *,
    cam: Annotated[Cam, "the map on the layer that opens the gate; its positive part counts"] = "grad_cam",
    backprop: Annotated[Backprop, "the map on the pixels that is gated"] = "guided_backprop",
) -> Float[Tensor, "b c *space"]:
    """`M = backprop ⊙ upsampled max(CAM, 0)` (multilinear, cell centres aligned); with the defaults Guided Grad-CAM.

    Both maps have their own settings at the defaults; what they check is in the receipt under their names.
    """
    return gate(_part(case, cam), _part(case, backprop))


def _part(case: Case, name: str) -> Tensor:
    """One of the two maps; what it tells of itself is passed on, its checks under its name."""
    own = replace(case, checks=[], tables=[], extra_maps={}, approximate=[], notes=[], used=set())
    found = METHODS[name].run(own)
    for here, there in zip(case.checks, own.checks, strict=True):
        here += [replace(check, name=f"{name}: {check.name}") for check in there]
    case.approximate += own.approximate
    case.notes += own.notes
    case.used |= own.used
    return found
