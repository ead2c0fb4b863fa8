"""Text of others (file names, labels, errors) made safe to show: nothing hidden in it can act on the screen."""

import re

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with its control characters shown by their code.

    These could command a terminal, turn the reading direction so that a name reads as another, or fit no encoding.

    Example:
        >>> visible("cat\\x1b[2J\\u202egpj.exe")
        'cat\\\\u001b[2J\\\\u202egpj.exe'
    """
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_SPELT = str.maketrans({
    "\N{MINUS SIGN}": "-", "×": "x", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≈": "~", "½": "1/2", "σ": "sigma",
    "λ": "lambda", "Σ": "sum", "Δ": "change of", "μ": "mu", "α": "alpha", "β": "beta", "γ": "gamma",
})  # fmt: skip


def drawable(text: str) -> str:
    """Visible text in the letters that Pillow's own font has; others would be drawn as boxes.

    Example:
        >>> drawable("σ −3 × 4")
        'sigma -3 x 4'
    """
    return visible(text).translate(_SPELT)
