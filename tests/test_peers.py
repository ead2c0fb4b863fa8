"""Captum, pytorch-grad-cam and torchcam give the same numbers where they are right.

Known to be wrong in them, so compared with the slow definitions instead (tests of gradients and CAMs), versions
captum 0.9, grad-cam 1.5.7, torchcam 0.5:
  * activations that later operations overwrite in place (ResNet `bn2`): grad-cam and torchcam hold the later values;
  * torchcam's Grad-CAM++: the division by the denominator is done on a copy, so its weights are Σ G² ReLU(G);
  * Captum's guided backpropagation and deconvnet: functional rectifiers, ReLU6, SiLU, GELU are passed as they are;
  * grad-cam's Eigen-CAM centres the channels first, which the paper does not;
  * Captum's trapezoid rule: n points with weights 1/n, which sum to (n − 1)/n;
  * grad-cam adds 1e-6 to the denominator of Grad-CAM++, more than the squared gradients of most networks: compared
    on a score times 1e8, for which that does not matter.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pellucid as pel
from method_cases import close, error, heat, plain, pooled, random_input, score
from networks import zoo
from networks.common import seeded
from oracles import cams

pytestmark = pytest.mark.peers

CLASSES = [1, 3]
GRAD_CAM = {
    "grad_cam": "GradCAM",
    "grad_cam_plus_plus": "GradCAMPlusPlus",
    "xgrad_cam": "XGradCAM",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
}
TORCHCAM = {"grad_cam": "GradCAM", "xgrad_cam": "XGradCAM", "layer_cam": "LayerCAM"}


def vgg_like() -> nn.Module:
    """Modules of their own for every ReLU, and max-pooling: what Captum handles."""

    def make() -> nn.Module:
        parts: list[nn.Module] = []
        for before, after in ((3, 8), (8, 8), (8, 12)):
            parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*parts[:-1], nn.Flatten(), nn.Linear(12 * 4 * 4, 5))

    return seeded(make)().double()


LARGE = 1e8


def x16() -> Tensor:
    return random_input(2, 3, 16, 16)


# ------------------------------------------------------------------------------------------------------------- Captum


@pytest.fixture(scope="module")
def captum():
    return pytest.importorskip("captum.attr", reason="captum is not installed; pip install -e '.[peers]'")


@pytest.mark.parametrize(
    ("method", "peer", "words"),
    [
        ("saliency", "Saliency", {"abs": False}),
        ("gradient_x_input", "InputXGradient", {}),
        ("guided_backprop", "GuidedBackprop", {}),
        ("deconvnet", "Deconvolution", {}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_gradients_are_captums(captum, method: str, peer: str, words: dict):
    model, x = vgg_like(), x16()
    expected = getattr(captum, peer)(model).attribute(x.clone().requires_grad_(), target=CLASSES, **words)
    close(heat(vgg_like(), x, method, CLASSES), expected.detach(), 1e-11)


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [("gauss_legendre", "gausslegendre"), ("middle", "riemann_middle"), ("trapezoid", "riemann_trapezoid")],
)
def test_integrated_gradients_are_captums(captum, rule: str, theirs: str):
    """To single precision, in which Captum keeps its weights."""
    model, x, start, steps = vgg_like(), x16(), random_input(2, 3, 16, 16, seed=4), 20
    expected = captum.IntegratedGradients(model).attribute(x, start, CLASSES, n_steps=steps, method=theirs)
    found = heat(model, x, "integrated_gradients", CLASSES, baseline=start, steps=steps, rule=rule)
    close(found * (steps - 1) / steps if rule == "trapezoid" else found, expected, 1e-6)


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_without_noise_smoothgrad_is_captums(captum, kind: str):
    model, x = vgg_like(), x16()
    tunnel = captum.NoiseTunnel(captum.Saliency(model))
    expected = tunnel.attribute(x, kind, nt_samples=3, stdevs=1e-12, target=CLASSES, abs=False)
    ours = {"smoothgrad": "smoothgrad", "smoothgrad_sq": "smoothgrad_squared", "vargrad": "vargrad"}[kind]
    found = heat(model, x, ours, CLASSES, samples=3, noise_fraction=0.0)
    assert float((found - expected).abs().max()) <= 1e-9


@pytest.mark.parametrize("layer", ["layer4", "layer3.1.bn2", "layer2.0.downsample"])
def test_grad_cam_is_captums_also_where_the_layer_is_overwritten(captum, layer: str):
    model, x = zoo.build("resnet18").double(), zoo.picture("resnet18", dtype=torch.float64)
    peer = captum.LayerGradCam(model, model.get_submodule(layer))
    expected = peer.attribute(x, 1, relu_attributions=True)[:, 0].detach()
    close(heat(model, x, "grad_cam", layers=layer), expected, 1e-10)


# ---------------------------------------------------------------------------------------------------- pytorch-grad-cam


@pytest.fixture(scope="module")
def grad_cam():
    return pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed; pip install -e '.[peers]'")


def scaled(maps: Tensor) -> Tensor:
    """Each map to 0..1, as pytorch-grad-cam gives it, without its 1e-7."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


@contextmanager
def on_own_grid(library) -> Iterator[None]:
    """pytorch-grad-cam without its enlargement by OpenCV."""
    module = library.base_cam
    original = module.scale_cam_image
    module.scale_cam_image = lambda cam, target_size=None: original(cam)
    try:
        yield
    finally:
        module.scale_cam_image = original


def theirs(library, name: str, make: Callable[[], nn.Module], x: Tensor, layer: str) -> Tensor:
    model = make()
    targets = [lambda output, c=c: LARGE * output[c] for c in CLASSES[: len(x)]]
    with on_own_grid(library), getattr(library, name)(model, [model.get_submodule(layer)]) as peer:
        return torch.from_numpy(np.asarray(peer(x.clone(), targets))).double()


@pytest.mark.parametrize("method", GRAD_CAM)
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("mobilenet_v2", "features.12"),
        ("densenet121", "features.denseblock3"),
        ("small", "3"),
    ],
)
def test_the_cam_family_is_pytorch_grad_cams(grad_cam, method: str, name: str, layer: str):
    def make() -> nn.Module:
        return pooled() if name == "small" else zoo.build(name).double()

    x = x16() if name == "small" else zoo.picture(name, dtype=torch.float64)
    rows = torch.arange(len(x))
    target = pel.custom(lambda y: LARGE * y[rows, CLASSES[: len(x)]], "large score")
    found = heat(make(), x, method, target, layers=layer)
    assert found.flatten(1).any(1).all(), "a map of zeros compares nothing"
    close(scaled(found), theirs(grad_cam, GRAD_CAM[method], make, x, layer), 1e-5)


def test_where_a_layer_is_overwritten_pytorch_grad_cam_has_the_later_values(grad_cam):
    x = zoo.picture("resnet18", dtype=torch.float64)
    model = zoo.build("resnet18").double()
    A, G = cams.activation_and_gradient(model, "layer3.1.bn2", x, score())
    slow = scaled(cams.each(cams.hires_cam, A, G))
    close(scaled(heat(model, x, "hires_cam", layers="layer3.1.bn2")), slow, 1e-9)
    peer = theirs(grad_cam, "HiResCAM", lambda: zoo.build("resnet18").double(), x, "layer3.1.bn2")
    assert error(peer, slow) > 0.1


# ------------------------------------------------------------------------------------------------------------ torchcam


@pytest.fixture(scope="module")
def torchcam():
    return pytest.importorskip("torchcam.methods", reason="torchcam is not installed; pip install -e '.[peers]'")


@pytest.mark.parametrize("method", TORCHCAM)
@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer4"), ("small", "3"), ("small", "0")])
def test_cams_are_torchcams(torchcam, method: str, name: str, layer: str):
    model = plain() if name == "small" else zoo.build(name).double()
    x = random_input(2, 3, 8, 8) if name == "small" else zoo.picture(name, batch=2, dtype=torch.float64)
    found = heat(model, x, method, CLASSES, layers=layer)
    with getattr(torchcam, TORCHCAM[method])(model, layer) as extractor:
        scores = model(x.clone().requires_grad_())
        (expected,) = extractor(CLASSES, scores, normalized=False)
    close(found, expected.detach(), 1e-6)


def test_cam_is_torchcams(torchcam):
    model, x = zoo.build("resnet18").double(), zoo.picture("resnet18", batch=2, dtype=torch.float64)
    with torchcam.CAM(model, "layer4", "fc") as extractor:
        model(x)
        (expected,) = extractor(CLASSES, normalized=False)
    close(heat(model, x, "cam", CLASSES), expected.detach(), 1e-10)
