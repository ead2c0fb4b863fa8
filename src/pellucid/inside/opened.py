"""A network opened on an example: its recording, its layers and units, and how they are named."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.chunks import out_of_memory
from pellucid.core.errors import ImageError, LayerError, ModelError, PellucidError, TraceError
from pellucid.core.fields import Field, fields
from pellucid.core.layers import last_spatial
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.local import spaces
from pellucid.core.record import record
from pellucid.core.trace import Trace, Value
from pellucid.images.decode import Picture
from pellucid.images.placement import Placement
from pellucid.methods.doctor import example_input
from pellucid.methods.pictures import home_of, one_image
from pellucid.models.model import Model, check_input
from pellucid.models.resolve import the_model


@dataclass(frozen=True)
class Unit:
    """One channel of a layer; `"layer3.0:17"` in words."""

    layer: str
    channel: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}"


@dataclass(frozen=True, eq=False)
class Opened:
    """A network and a recording of one example.

    Attributes:
        model: the network, untouched.
        trace: what happened on the example; layers, shapes and fields are read off it.
        picture, placement: the example as people see it, and where the input lies on it; None where it is none.
    """

    model: Model
    trace: Trace
    picture: Picture | None = None
    placement: Placement | None = None
    notes: tuple[str, ...] = ()

    def layer(self, name: str | None) -> str:
        """The layer's name, checked; the last one with maps where none is named.

        Raises:
            LayerError: no such layer; the nearest names are offered.
        """
        if name is None:
            return last_spatial(self.trace)[0]
        self.trace.at(name)
        return name

    def value(self, layer: str) -> Value:
        return self.trace.at(layer)

    def channel_axis(self, layer: str) -> int:
        """The axis of a layer's output that counts its units.

        Raises:
            LayerError: nothing shows which axis that is.
        """
        value = self.value(layer)
        axis = self.unit_axis(value)
        if axis is None:
            raise LayerError(
                f'layer "{layer}" gives {tuple(value.shape)}, and nothing shows which axis counts its units; take the '
                "layer before or behind it"
            )
        return axis

    def unit_axis(self, value: Value) -> int | None:
        """The axis of a recorded value that counts units; None where nothing shows it."""
        known = layout(self.trace).get(value, UNKNOWN).channel
        if known is not None or len(value.shape) == 2:
            return 1 if known is None else known
        space = self._space.get(value, ())
        left = [axis for axis in range(1, len(value.shape)) if axis not in space]
        return left[0] if space and len(left) == 1 else None

    @property
    def _space(self) -> dict[Value, tuple[int, ...]]:
        """The axes of positions, as far as they can be followed."""
        if "spaces" not in self.trace.memo:
            self.trace.memo["spaces"] = spaces(self.trace, self.trace.inputs[0])
        return self.trace.memo["spaces"]

    def units(self, layer: str) -> int:
        """How many units a layer has."""
        return self.value(layer).shape[self.channel_axis(layer)]

    def maps(self, layer: str, output: Tensor) -> Float[Tensor, "b c *space"]:
        """A layer's output with its channels second; without any further axes where it has no positions."""
        return output.movedim(self.channel_axis(layer), 1)

    def positions(self, layer: str) -> tuple[int, ...]:
        """The size of a layer's maps on the example; empty where it has no positions."""
        shape = list(self.value(layer).shape)
        del shape[self.channel_axis(layer)]
        return tuple(shape[1:])

    def field(self, layer: str) -> Field:
        """What the layer's units can see."""
        return fields(self.trace)[self.value(layer)]

    def spatial(self, layer: str) -> str:
        """
        Raises:
            LayerError: the layer has no maps.
        """
        if not self.positions(layer):
            raise LayerError(
                f'layer "{layer}" has no maps, its output is {tuple(self.value(layer).shape[1:])} for each picture; '
                f'the last layer with maps is "{last_spatial(self.trace)[0]}"'
            )
        return layer

    def unit(self, name: str | Unit) -> Unit:
        """A unit by its name, `"LAYER:CHANNEL"`.

        Raises:
            LayerError: not of that form, no such layer, or no such unit; the nearest names are offered.
        """
        if isinstance(name, Unit):
            layer, channel = name.layer, name.channel
        else:
            layer, colon, number = name.rpartition(":")
            if not colon or not number.strip().isascii() or not number.strip().isdigit():
                raise LayerError(f'unit "{name}" came; write LAYER:CHANNEL, such as "{last_spatial(self.trace)[0]}:0"')
            channel = int(number)
        count = self.units(self.layer(layer))
        if not 0 <= channel < count:
            raise LayerError(f'no unit {channel} in layer "{layer}"; it has {count}, from 0 to {count - 1}')
        return Unit(layer, channel)


def opened(model: Model | nn.Module | str, image: Any = None) -> Opened:
    """Record a network on one picture, on a tensor of inputs, or on seeded noise of its input size.

    Args:
        image: whatever `explain` takes for one picture, or inputs `(b, c, *space)`; noise where it is None.

    Raises:
        ModelError: no image was given and the network's input size is not known.
        ImageError: the picture can't be read.
        TraceError: the network can't be recorded.
    """
    chosen = the_model(model)
    picture, placement, notes = None, None, chosen.notes
    if image is None:
        x = example_input(chosen)
    elif isinstance(image, Tensor) and len(image) > 1:
        x = image
    else:
        x, picture, placement, notes = one_image(chosen, image)
        x = x[None]
    x = x.to(home_of(chosen.module))
    try:
        return Opened(chosen, record(chosen.module, x), picture, placement, notes)
    except TraceError:
        check_input(chosen, x)  # a wrong number of channels is told in plainer words
        raise


def pictured(model: Model | nn.Module | str, image: Any) -> Opened:
    """A network opened on what must be a picture or an input: noise would answer another question.

    Raises:
        ImageError: nothing came, or what can't be read.
    """
    if image is None:
        raise ImageError("no picture came; give a path, an array, or a tensor of one input, (1, c, h, w)")
    return opened(model, image)


def untaken(model: Model, x: Tensor, error: Exception) -> PellucidError:
    """What is told where a network runs over many pictures and torch refuses some: memory is another matter."""
    if out_of_memory(error):
        return TraceError(f"memory ran out at inputs of shape {tuple(x.shape)}; take smaller pictures")
    try:
        check_input(model, x)
    except ModelError as told:
        return told
    return TraceError(f"{model.name} could not take inputs of shape {tuple(x.shape)}: {error}; check size and channels")
