"""Guided backpropagation and deconvnet: what a rectifier sends back.

A rectifier is any activation that lets large positive values through and damps negative ones: ReLU,
ReLU6, LeakyReLU, PReLU, ELU, SELU, CELU, SiLU, GELU, Hardswish, Mish, Softplus, a clamp at zero, and
`x * sigmoid(x)` written out; functional, in place or as a module. Sigmoid, tanh and softmax are not.
"""

import torch

from pellucid.core.derivatives import Grads, exact
from pellucid.core.patterns import rectifier_of
from pellucid.core.pull import Rules
from pellucid.core.trace import Node, ordinary


def guided(node: Node, grads: Grads) -> Grads:
    """`R_in = f'(x) · max(R_out, 0)`: the exact derivative of the positive part of what arrives.

    For ReLU this is `1[x>0] · 1[R>0] · R`; for smooth rectifiers f' is their own derivative.

    Source: Springenberg et al. 2015, arXiv:1412.6806, section 3.4; the reading for smooth rectifiers is ours.
    """
    positive = [None if g is None else g.clamp(min=0) for g in grads]
    return exact(node, positive) if node.gate is None else _through_gate(node, positive)


def deconvnet(node: Node, grads: Grads) -> Grads:
    """`R_in = max(R_out, 0)`: what arrives is rectified, whatever the forward value was.

    A product `x * relu6(x + 3)` that is divided by six later on stands for six times a rectifier: `6 max(R_out, 0)`.

    Source: Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1.
    """
    place, slope = (0, 1.0) if node.gate is None else node.gate[1:]
    back = None if grads[0] is None else grads[0].clamp(min=0) if slope == 1.0 else grads[0].clamp(min=0) * slope
    return [back if i == place else None for i in range(len(node.inputs))]


def _through_gate(node: Node, grads: Grads) -> Grads:
    """The derivative of a rectifier that is written out as a product."""
    place = 0 if node.gate is None else node.gate[1]
    x = ordinary(node.inputs[place].data).detach().requires_grad_()
    with torch.enable_grad():
        (back,) = torch.autograd.grad(rectifier_of(node)(x), x, grads[0])
    return [back if i == place else None for i in range(len(node.inputs))]


GUIDED = Rules("guided", {"rectifier": guided})
DECONVNET = Rules("deconvnet", {"rectifier": deconvnet})
