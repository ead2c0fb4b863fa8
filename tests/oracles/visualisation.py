"""Pictures made by ascent: spectra, colours, transforms, objectives, MACO, Adam, class images, DeepDream. NumPy.

Olah et al. 2017, doi 10.23915/distill.00007; MACO: Fel et al. 2023, arXiv:2306.06805; class image: Simonyan et al.
2014, arXiv:1312.6034, §2; DeepDream: Mordvintsev et al. 2015; specification §1.3–§1.5. Pictures are `(C, H, W)`.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

Array = np.ndarray
Grad = Callable[[Array], Array]

LUCID = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])

# ----------------------------------------------------------------------------------------------------------- spectrum


def frequencies(height: int, width: int) -> Array:
    """√(f_y² + f_x²) in cycles a pixel, `(height, width // 2 + 1)`; f_y = i/H up to (H − 1)/2, then (i − H)/H.

    The row i = H/2 of an even H is −1/2, which changes nothing here.
    """
    found = np.zeros((height, width // 2 + 1))
    for i, j in np.ndindex(*found.shape):
        fy, fx = (i if i < (height + 1) // 2 else i - height) / height, j / width
        found[i, j] = np.sqrt(fy**2 + fx**2)
    return found


def spectrum_gain(height: int, width: int, decay: float = 1.0) -> Array:
    """√(HW) / max(f, 1/max(W, H))^p."""
    return np.sqrt(height * width) / np.maximum(frequencies(height, width), 1 / max(height, width)) ** decay


def from_spectrum(z: Array, height: int, width: int, decay: float = 1.0) -> Array:
    """irfft2(z · gain)/4, z complex `(C, H, W//2 + 1)`: what there is before the colours and the sigmoid."""
    return (
        np.stack([np.fft.irfft2(channel * spectrum_gain(height, width, decay), s=(height, width)) for channel in z]) / 4
    )


def inverse_by_sum(z: Array, height: int, width: int) -> Array:
    """irfft2 of one channel as a sum: x[y, c] = (1/HW) Σ_i Σ_j m_j Re(z[i, j] e^{2πi(iy/H + jc/W)}).

    m_j is 1 for j = 0 and for j = W/2 of an even W, else 2: the columns left out are the conjugates.
    """
    out = np.zeros((height, width))
    for y, c in np.ndindex(height, width):
        for i, j in np.ndindex(height, width // 2 + 1):
            times = 1 if j == 0 or 2 * j == width else 2
            out[y, c] += times * (z[i, j] * np.exp(2j * np.pi * (i * y / height + j * c / width))).real
    return out / (height * width)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# ------------------------------------------------------------------------------------------------------------- colour


def covariance(pictures: Array) -> Array:
    """E[(x − E x)(x − E x)ᵀ] of the channels over all pixels of pictures `(N, C, H, W)`."""
    pixels = [p for picture in pictures for p in picture.reshape(len(picture), -1).T]
    mean = sum(pixels) / len(pixels)
    return sum(np.outer(p - mean, p - mean) for p in pixels) / len(pixels)


def colour_root(cov: Array, symmetric: bool = False) -> Array:
    """M with M Mᵀ = cov: U √S, its columns orthogonal, the largest first (Lucid's kind), or the symmetric U √S Uᵀ.

    The sign of a column of U √S is nobody's: compare up to sign.
    """
    values, vectors = np.linalg.eigh(cov)
    order = np.argsort(-values)
    root = vectors[:, order] * np.sqrt(np.maximum(values[order], 0))
    return root @ vectors[:, order].T if symmetric else root


def normalised(root: Array) -> Array:
    """M over the largest norm of its columns: 0.4619 for Lucid's."""
    return root / max(np.sqrt((column**2).sum()) for column in root.T)


def correlate(x: Array, matrix: Array) -> Array:
    """out[c] = Σ_k M[c, k] x[k] at each pixel: decorrelated channels to colours."""
    return np.stack([sum(matrix[c, k] * x[k] for k in range(len(x))) for c in range(len(matrix))])


def decorrelate(x: Array, matrix: Array) -> Array:
    """The way back: M⁻¹ at each pixel."""
    return correlate(x, np.linalg.inv(matrix))


# --------------------------------------------------------------------------------------------------------- transforms


def sample(picture: Array, y: float, x: float, outside: float | None = 0.5) -> Array:
    """The picture at (y, x), pixel (0, 0) having its centre there; bilinear; outside a number or (None) the edge."""
    height, width = picture.shape[1:]
    y0, x0, total = int(np.floor(y)), int(np.floor(x)), np.zeros(len(picture))
    for r, c in ((y0, x0), (y0, x0 + 1), (y0 + 1, x0), (y0 + 1, x0 + 1)):
        weight = (1 - abs(y - r)) * (1 - abs(x - c))
        if 0 <= r < height and 0 <= c < width:
            total += weight * picture[:, r, c]
        elif outside is None:
            total += weight * picture[:, min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
        else:
            total += weight * outside
    return total


def affine(
    picture: Array,
    matrix: Array,
    shift: Sequence[float] = (0, 0),
    outside: float | None = 0.5,
    size: Sequence[int] = (),
) -> Array:
    """out[q] = picture at M (q − c_out) + c_in + shift, c = ((H − 1)/2, (W − 1)/2); M maps (y, x) from out to in."""
    height, width = size or picture.shape[1:]
    out, inner = np.zeros((len(picture), height, width)), [(n - 1) / 2 for n in picture.shape[1:]]
    for r, c in np.ndindex(height, width):
        y, x = matrix @ np.array([r - (height - 1) / 2, c - (width - 1) / 2])
        out[:, r, c] = sample(picture, y + inner[0] + shift[0], x + inner[1] + shift[1], outside)
    return out


def turn(degrees: float, scale: float = 1.0) -> Array:
    """The matrix that turns what is seen counter-clockwise on the screen (y points down) and enlarges it by `scale`."""
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) / scale


def resize(picture: Array, height: int, width: int) -> Array:
    """Bilinear, no smoothing, outer edges aligned: out[r] at (r + ½) H/H' − ½, clamped (torch: align_corners=False)."""
    sy, sx = picture.shape[1] / height, picture.shape[2] / width
    out = np.zeros((len(picture), height, width))
    for r, c in np.ndindex(height, width):
        out[:, r, c] = sample(picture, max((r + 0.5) * sy - 0.5, 0), max((c + 0.5) * sx - 0.5, 0), None)
    return out


def pad(picture: Array, width: int, value: float = 0.5) -> Array:
    """A frame of a number."""
    return crop(picture, -width, -width, picture.shape[1] + 2 * width, picture.shape[2] + 2 * width, value)


def crop(picture: Array, top: int, left: int, height: int, width: int, value: float = 0.5) -> Array:
    """A window; a number where it leaves the picture. Jitter by d: a crop of side − d from a random corner 0 … d."""
    out = np.full((len(picture), height, width), float(value))
    for r, c in np.ndindex(height, width):
        if 0 <= r + top < picture.shape[1] and 0 <= c + left < picture.shape[2]:
            out[:, r, c] = picture[:, r + top, c + left]
    return out


# --------------------------------------------------------------------------------------------------------- objectives


def channel_mean(A: Array, channel: int) -> float:
    """The mean of one channel of A `(K, H, W)` over its cells."""
    return float(sum(A[channel].ravel()) / A[channel].size)


def neuron(A: Array, channel: int, place: Sequence[int] | None = None) -> float:
    """One cell, by default the middle (H//2, W//2): of a 2 × 2 the one at the bottom right."""
    y, x = place or (A.shape[1] // 2, A.shape[2] // 2)
    return float(A[channel, y, x])


def cosine(a: Array, b: Array) -> float:
    """a·b/(‖a‖‖b‖), 0 where one of them is 0."""
    size = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / size) if size > 0 else 0.0


def direction(A: Array, v: Array, power: float = 0.0, place: Sequence[int] | None = None) -> float:
    """h·v max(0.1, cos(h, v))^p with h = A[:, place]; without a place the mean over all cells. lucid#116."""
    cells = [tuple(place)] if place is not None else list(np.ndindex(*A.shape[1:]))
    values = [float(A[:, y, x] @ v) * max(0.1, cosine(A[:, y, x], v)) ** power for y, x in cells]
    return sum(values) / len(values)


def layer_mean(A: Array) -> float:
    """mean(A²): DeepDream's."""
    return float(sum(a * a for a in A.ravel()) / A.size)


def gram(A: Array) -> Array:
    """G[k, l] = Σ_p A_k(p) A_l(p)."""
    return np.array([[(a * b).sum() for b in A] for a in A])


def diversity(batch: Array) -> float:
    """The mean over unordered pairs of images of cos(G_i, G_j): to be taken off. `(B, K, H, W)`; 0 for one image."""
    grams = [gram(A) for A in batch]
    pairs = [cosine(a, b) for a, b in combinations(grams, 2)]
    return sum(pairs) / len(pairs) if pairs else 0.0


def total_variation(picture: Array) -> float:
    """Σ |x[y+1, c] − x[y, c]| + Σ |x[y, c+1] − x[y, c]| over all channels."""
    return float(sum(np.abs(np.diff(channel, axis=a)).sum() for channel in picture for a in (0, 1)))


def l1(picture: Array, grey: float = 0.5) -> float:
    """Σ |x − grey|."""
    return float(sum(abs(v - grey) for v in picture.ravel()))


def l2(picture: Array, grey: float = 0.5) -> float:
    """√Σ (x − grey)²."""
    return float(np.sqrt(sum((v - grey) ** 2 for v in picture.ravel())))


# --------------------------------------------------------------------------------------------------------------- MACO


def standard(x: Array) -> Array:
    """(x − mean)/std over all entries, std dividing by n."""
    mean = sum(x.ravel()) / x.size
    return (x - mean) / np.sqrt(sum((v - mean) ** 2 for v in x.ravel()) / x.size)


def mean_magnitude(pictures: Array, matrix: Array) -> Array:
    """r: the mean over pictures of |rfft2| of their decorrelated channels, `(C, H, W//2 + 1)`."""
    return sum(np.abs(np.fft.rfft2(decorrelate(picture, matrix))) for picture in pictures) / len(pictures)


def maco_signal(phase: Array, magnitude: Array, width: int) -> Array:
    """irfft2(r e^{i std(φ)}) for each channel; `width` tells 2n from 2n + 1."""
    angles = standard(phase)
    z = magnitude * (np.cos(angles) + 1j * np.sin(angles))
    return np.stack([np.fft.irfft2(channel, s=(phase.shape[1], width)) for channel in z])


def maco(phase: Array, magnitude: Array, matrix: Array, width: int, low: float = 0.0, high: float = 1.0) -> Array:
    """a + (b − a) σ(C std(irfft2(r e^{i std(φ)}))), C `(C, C)` the colour matrix."""
    return low + (high - low) * sigmoid(correlate(standard(maco_signal(phase, magnitude, width)), matrix))


def exact_columns(width: int) -> list[int]:
    """The columns of the half spectrum whose magnitudes are r whatever the phases: neither 0 nor W/2."""
    return [j for j in range(width // 2 + 1) if j != 0 and 2 * j != width]


def column_loss(phase: Array, column: int) -> Array:
    """|cos((φ(−k) + φ(k))/2)|, what is left of r at row k of a column that is its own conjugate, r(−k) = r(k).

    irfft2 keeps the half (z(k) + z̄(−k))/2 of such a column only. `(C, H)`, φ already standardised.
    """
    height = phase.shape[1]
    other = phase[:, [(-i) % height for i in range(height)], column]
    return np.abs(np.cos((phase[:, :, column] + other) / 2))


# ------------------------------------------------------------------------------------------------------------- ascent


def adam(
    gradients: Grad, x: Array, steps: int, lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Array:
    """m ← b1 m + (1 − b1) g, v ← b2 v + (1 − b2) g²; x ← x + lr m̂/(√v̂ + ε), m̂ = m/(1 − b1ᵗ), v̂ = v/(1 − b2ᵗ).

    Upwards. Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    """
    x, m, v = x.astype(np.float64).copy(), np.zeros(x.shape), np.zeros(x.shape)
    for t in range(1, steps + 1):
        g = gradients(x)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        x = x + lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return x


def ascend(gradients: Grad, x: Array, steps: int, lr: float) -> Array:
    """x ← x + lr g."""
    for _ in range(steps):
        x = x + lr * gradients(x)
    return x


def class_optimum(w: Array, decay: float, mean: bool = False) -> Array:
    """argmax_x w·x − λ‖x‖² = w/(2λ); with λ·mean(x²) in its place n w/(2λ)."""
    return w / (2 * decay) * (w.size if mean else 1)


def roll(picture: Array, dy: int, dx: int) -> Array:
    """out[(y + dy) mod H, (x + dx) mod W] = picture[y, x]."""
    out = np.zeros_like(picture)
    height, width = picture.shape[1:]
    for y, x in np.ndindex(height, width):
        out[:, (y + dy) % height, (x + dx) % width] = picture[:, y, x]
    return out


def tiled(gradients: Grad, picture: Array, tile: int, dy: int = 0, dx: int = 0) -> Array:
    """The gradient of every tile (from the top left, the last ones smaller) of the rolled picture, rolled back."""
    rolled = roll(picture, dy, dx)
    out = np.zeros_like(rolled)
    for y in range(0, picture.shape[1], tile):
        for x in range(0, picture.shape[2], tile):
            out[:, y : y + tile, x : x + tile] = gradients(rolled[:, y : y + tile, x : x + tile])
    return roll(out, -dy, -dx)


def deep_dream(
    picture: Array,
    gradients: Grad,
    sizes: Sequence[tuple[int, int]],
    steps: int = 10,
    step: float = 1.5 / 255,
    bounds: tuple[float, float] = (0, 1),
    shrink: Callable[[Array, int, int], Array] = resize,
    grow: Callable[[Array, int, int], Array] = resize,
) -> list[Array]:
    """The picture after every octave, smallest first; no jitter.

    `sizes` are the octaves' from the smallest up, the last the picture's own; each base is the next bigger one shrunk,
    as in the notebook. x = base + grown detail; steps of x ← clamp(x + step · g/mean|g|); detail = x − base.
    """
    bases = [picture]
    for size in list(sizes)[-2::-1]:
        bases.insert(0, shrink(bases[0], *size))
    detail, found = np.zeros_like(bases[0]), []
    for base, size in zip(bases, sizes, strict=True):
        x = base + (detail if detail.shape[1:] == tuple(size) else grow(detail, *size))
        for _ in range(steps):
            g = gradients(x)
            size_of_g = np.abs(g).sum() / g.size
            x = np.clip(x + (step * g / size_of_g if size_of_g > 0 else 0), *bounds)
        detail = x - base
        found.append(x)
    return found


def octave_sizes(height: int, width: int, octaves: int = 4, scale: float = 1.4) -> list[tuple[int, int]]:
    """(round(H/sⁱ), round(W/sⁱ)) from the smallest up."""
    return [(round(height / scale**i), round(width / scale**i)) for i in range(octaves)][::-1]
