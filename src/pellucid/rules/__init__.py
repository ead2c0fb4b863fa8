"""What does one operation send back? Composites of relevance rules, and the rules that they are made of."""

from pellucid.rules.composites import (
    Choice,
    Composite,
    composite_from,
    deep_taylor,
    epsilon_alpha2_beta1,
    epsilon_alpha2_beta1_flat,
    epsilon_gamma,
    epsilon_gamma_box,
    epsilon_only,
    epsilon_plus,
    epsilon_plus_flat,
    excitation,
    read_composite,
)
from pellucid.rules.linear_rules import alpha_beta, box, epsilon, flat, gamma, signed_gamma, w_square, z_plus, zero

__all__ = [
    "Choice", "Composite", "alpha_beta", "box", "composite_from", "deep_taylor", "epsilon", "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat", "epsilon_gamma", "epsilon_gamma_box", "epsilon_only", "epsilon_plus",
    "epsilon_plus_flat", "excitation", "flat", "gamma", "read_composite", "signed_gamma", "w_square", "z_plus", "zero",
]  # fmt: skip
