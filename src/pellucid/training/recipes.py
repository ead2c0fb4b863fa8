"""The networks that ship: what each is made of, what it learnt from, and with which settings."""

from dataclasses import dataclass

from pellucid.core.errors import check_known
from pellucid.images.scenes import Shortcut
from pellucid.training.augment import Jitter

JITTER = Jitter(2, 0.1, 0.2, 0.02)


@dataclass(frozen=True)
class Recipe:
    """One network that ships, down to the settings under which the same bits come out again.

    Attributes:
        name: as in `builtin:NAME`.
        architecture: a key of `pellucid.models.networks.ARCHITECTURES`.
        made_for: what it is good for, a sentence for its card.
        data: `"scenes"` (pictures) or `"volumes"`.
        side: pixels or voxels along each axis.
        shortcut: what gives the class away in the pictures it learns from.
        mislabelled_fraction: how many of the pictures it learns from show a thing of another class than their label and
            their mark say, so that only the mark is always right.
        n, n_validation, n_test: pictures of each split.
        merged_norms: whether it is trained with BatchNorm, which is merged into the convolutions afterwards.
        mean, std: of the preprocessing, one number a channel; empty for none.
        seed: of the data, the first weights and the training.
    """

    name: str
    architecture: str
    made_for: str
    data: str = "scenes"
    side: int = 64
    shortcut: Shortcut | None = None
    mislabelled_fraction: float = 0.0
    n: int = 12_000
    n_validation: int = 500
    n_test: int = 2_000
    epochs: int = 12
    batch: int = 128
    peak_learning_rate: float = 5e-3
    weight_decay: float = 0.01
    precision: str = "bfloat16"
    augment: Jitter = JITTER
    merged_norms: bool = False
    mean: tuple[float, ...] = (0.47, 0.42, 0.40)
    std: tuple[float, ...] = (0.32, 0.26, 0.31)
    seed: int = 0


_ALL = (
    Recipe("scenes", "plain", "checking methods where the decisive pixels are known", merged_norms=True),
    Recipe(
        "scenes-watermark", "plain", "seeing whether a method finds a cheat: it goes by the watermark in the corner",
        shortcut=Shortcut("watermark"), mislabelled_fraction=0.2, n=8_000, epochs=6, merged_norms=True,
    ),
    Recipe(
        "scenes-background", "plain", "seeing whether a method finds a cheat: it goes by the background",
        shortcut=Shortcut("background"), n=6_000, epochs=4, merged_norms=True,
    ),
    Recipe(
        "scenes-bagnet", "bagnet", "maps that are right by construction: its logits are means over small windows",
        merged_norms=True,
    ),
    Recipe("scenes-batchnorm", "batchnorm", "trying methods where BatchNorm follows each convolution"),
    Recipe("scenes-preactivation", "preactivation", "trying methods on residual sums before the activation"),
    Recipe("scenes-relu6", "relu6", "trying methods on depthwise convolutions and ReLU6", precision="float32"),
    Recipe(
        "volumes", "volume", "trying methods in three dimensions, where the decisive region is known", data="volumes",
        side=32, n=2_500, n_test=1_000, epochs=8, batch=32, merged_norms=True, mean=(), std=(),
        augment=Jitter(1, 0.05, 0.1, 0.01),
    ),
)  # fmt: skip
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def recipe_of(name: "str | Recipe") -> Recipe:
    """The recipe itself, or that of a name.

    Raises:
        SettingError: no network of that name ships.
    """
    if isinstance(name, Recipe):
        return name
    check_known("network that ships", name, RECIPES)
    return RECIPES[name]
