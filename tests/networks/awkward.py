"""Small networks as users write them: `AWKWARD[name] = (factory, input shapes)`; all in evaluation mode and seeded.

    factory, shapes = AWKWARD["dense_concat"]
    model, inputs = factory(), example(shapes)
    score = class_one(model(*inputs))

`NO_AUTOGRAD[name]`: torch itself cannot differentiate it to the input, though the network is a fine function.
`HIDDEN[name]`: torch differentiates it, but its rectifiers hide from Python, so from `oracles.rectifiers`.
Both name a twin in `AWKWARD` that computes the same from equal weights and has neither limit; `twin(name)` gives it.
`BATCH_DEPENDENT`: one image's output depends on the others of its batch, by the user's own code.
`WRITES_STATE`: the forward changes the model's buffers.
`REFUSED[name] = (factory, shapes, reason)`: must end in a clear error.
`VARIANTS[name] = factory`, input `VARIANT_SHAPES`: one network, spelled differently; maps must be identical.
"""

from .common import Entry, class_one, example, logits, seeded, unsettle
from .control import BATCH_DEPENDENT, CONTROL, HIDDEN, WRITES_STATE
from .control import NO_AUTOGRAD as _CONTROL_NO_AUTOGRAD
from .inplace import INPLACE
from .inplace import NO_AUTOGRAD as _INPLACE_NO_AUTOGRAD
from .operators import OPERATORS
from .refused import REFUSED
from .variants import SMOOTH_VARIANTS, VARIANT_SHAPES, VARIANTS

AWKWARD: dict[str, Entry] = {**INPLACE, **CONTROL, **OPERATORS}
NO_AUTOGRAD: dict[str, str] = {**_INPLACE_NO_AUTOGRAD, **_CONTROL_NO_AUTOGRAD}


def twin(name: str) -> str:
    """The entry whose autograd gradient and reference rectifiers hold for `name` too: mostly `name` itself."""
    return NO_AUTOGRAD.get(name) or HIDDEN.get(name) or name


__all__ = [
    "AWKWARD",
    "BATCH_DEPENDENT",
    "HIDDEN",
    "NO_AUTOGRAD",
    "REFUSED",
    "SMOOTH_VARIANTS",
    "VARIANTS",
    "VARIANT_SHAPES",
    "WRITES_STATE",
    "class_one",
    "example",
    "logits",
    "seeded",
    "twin",
    "unsettle",
]
