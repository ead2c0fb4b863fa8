"""Class activation maps whose weights come from asking the network again. A is `(channels, *space)`, one picture.

Score-CAM (Wang et al. 2020, arXiv:1910.01279). The paper (eq. 6–9, algorithm 1, from memory): H_k = A_k enlarged to the
picture, rescaled to 0..1; C_k = f(x ∘ H_k) − f(x_b), x_b = 0; α = softmax over channels of C; map = ReLU(Σ α_k A_k).
Differences to know:
  * the authors' code weights by the class's probability for the masked picture, takes neither f(x_b) away nor a softmax
    over channels, and leaves a channel out that is constant;
  * f(x_b) is the same for all channels, so the softmax takes it away: with it or without gives the same weights;
  * pytorch-grad-cam 1.5.7: softmax over channels of what the caller's target reads, no f(x_b); enlarges with
    align_corners=True; adds 1e-8 to the range; a constant channel becomes a mask of zeros;
  * whether f is a logit or a probability is open in the text (its experiments have softmax outputs): the caller's f.

Ablation-CAM (Desai & Ramaswamy 2020): w_k = (y − y_k)/y with channel k set to 0; map = ReLU(Σ w_k A_k). The paper
starts from the slope (y − y_k)/‖A_k‖ (eq. 5, from memory) and replaces the norm by y. If y < 0, dividing turns the sign
of the map. pytorch-grad-cam sets a channel to min(A) − 1e7 unless the smallest activation of the layer is exactly 0.
"""

from math import exp
from typing import Literal

import torch
from torch import Tensor

from .cams import enlarge, rectify, weighted
from .occlusion import Network, ask

Over = Literal["score", "size", "norm", "one"]


def rescaled(mask: Tensor) -> Tensor:
    """To 0..1; a constant one to 0."""
    low, high = mask.min(), mask.max()
    return (mask - low) / (high - low) if high > low else torch.zeros_like(mask)


def masks(A: Tensor, space: tuple[int, ...], align_corners: bool = False) -> list[Tensor]:
    """H_k: first enlarged, then rescaled."""
    return [rescaled(enlarge(channel[None], space, align_corners)[0]) for channel in A]


def increases(f: Network, x: Tensor, A: Tensor, target: int, align_corners: bool = False) -> list[float]:
    """C_k = f(x ∘ H_k) − f(0), one channel after the other."""
    empty = ask(f, torch.zeros_like(x), target)
    return [ask(f, x * mask, target) - empty for mask in masks(A, tuple(x.shape[1:]), align_corners)]


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    shares = [exp(v - top) for v in values]
    return [s / sum(shares) for s in shares]


def score_weights(f: Network, x: Tensor, A: Tensor, target: int, align_corners: bool = False) -> Tensor:
    """α: the softmax over channels of the increases, `(channels,)`."""
    return torch.tensor(softmax(increases(f, x, A, target, align_corners)), dtype=A.dtype)


def score_cam(f: Network, x: Tensor, A: Tensor, target: int, relu: bool = True, align_corners: bool = False) -> Tensor:
    """The paper's map, at the layer's size."""
    return rectify(weighted(score_weights(f, x, A, target, align_corners), A), relu)


def score_cam_plain(f: Network, x: Tensor, A: Tensor, target: int, relu: bool = True) -> Tensor:
    """As the authors' code weights: by f(x ∘ H_k) itself; constant channels left out. f should give probabilities."""
    weights = [
        ask(f, x * mask, target) if channel.max() > channel.min() else 0.0
        for channel, mask in zip(A, masks(A, tuple(x.shape[1:])), strict=True)
    ]
    return rectify(weighted(torch.tensor(weights, dtype=A.dtype), A), relu)


def ablated(head: Network, A: Tensor, target: int) -> list[float]:
    """y_k: the score when channel k is 0, one after the other; `head` is the rest of the network."""
    found = []
    for k in range(len(A)):
        edited = A.clone()
        edited[k] = 0
        found.append(ask(head, edited, target))
    return found


def ablation_weights(head: Network, A: Tensor, target: int, over: Over) -> Tensor:
    """w_k = (y − y_k)/y, /|y| (keeps the sign where y < 0), /‖A_k‖ or bare; 0/0 = 0. `(channels,)`."""
    y, weights = ask(head, A, target), []
    for channel, without in zip(A, ablated(head, A, target), strict=True):
        below = {"score": y, "size": abs(y), "norm": float(channel.norm()), "one": 1.0}[over]
        weights.append((y - without) / below if below != 0 else 0.0)
    return torch.tensor(weights, dtype=A.dtype)


def ablation_cam(head: Network, A: Tensor, target: int, relu: bool = True, over: Over = "score") -> Tensor:
    """ReLU(Σ_k w_k A_k), at the layer's size."""
    return rectify(weighted(ablation_weights(head, A, target, over), A), relu)
