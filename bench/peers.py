"""How each library is called for each kind of work, as its documentation says; every library is imported on use."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partialmethod
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from nets import CLASSES, Network
from torch import Tensor, nn

LIBRARIES = {
    "captum": "captum.attr",
    "grad-cam": "pytorch_grad_cam",
    "torchcam": "torchcam.methods",
    "zennit": "zennit",
    "lime": "lime.lime_image",
    "shap": "shap",
    "torch-lucent": "lucent.optvis.render",
}
TUNED_BATCH = 8
Run = Callable[[Network], Any]


@dataclass(frozen=True)
class Contender:
    """Something that does a row's work.

    Attributes:
        like: brings pellucid's map into the form in which this contender gives its own, so that they can be compared.
        differs: why the two maps need not be equal; None where they must.
    """

    name: str
    run: Run
    like: Callable[[Network, Tensor], Tensor] | None = None
    differs: str | None = None

    @property
    def library(self) -> str:
        return self.name.split(",")[0]


def versions() -> dict[str, str]:
    """Library -> installed version, or `not installed`."""
    found = {}
    for name in ("torch", "torchvision", "pellucid", *LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "from src" if name == "pellucid" else "not installed"
    return found


def import_all() -> None:
    """Import what is installed, so that no contender pays for it while it is measured; progress bars are off."""
    for module in ("pellucid", *LIBRARIES.values()):
        try:
            import_module(module)
        except Exception:  # the contenders that need it will tell its words
            continue
    if (bars := sys.modules.get("tqdm")) is not None:
        bars.tqdm.__init__ = partialmethod(bars.tqdm.__init__, disable=True)


def pellucid(method: str, **settings: Any) -> Contender:
    """`pel.attribute` on the user's module, everything included: recording, walk, receipt."""

    def run(net: Network) -> Tensor:
        import pellucid as pel

        given = {k: v(net) if callable(v) else v for k, v in settings.items()}
        asked = pel.METHODS[method](**given)
        layers = net.layer if asked.layered else None
        return pel.attribute(net.module, net.x, methods=asked, targets=net.target, layers=layers)[0].attribution

    return Contender("pellucid", run)


# ------------------------------------------------------------------------------------------------------------- Captum


def captum(name: str, differs: str | None = None, abs_off: bool = False) -> Contender:
    """`Method(module).attribute(x, target=…)`."""

    def run(net: Network) -> Tensor:
        from captum import attr

        words = {"abs": False} if abs_off else {}
        return getattr(attr, name)(net.module).attribute(net.x, target=net.target, **words)

    return Contender("captum", run, differs=differs)


def captum_grad_cam() -> Contender:
    def run(net: Network) -> Tensor:
        from captum.attr import LayerGradCam

        made = LayerGradCam(net.module, net.site)
        return made.attribute(net.x, target=net.target, relu_attributions=True)[:, 0]

    return Contender("captum", run)


def captum_guided_grad_cam(differs: str | None = None) -> Contender:
    def run(net: Network) -> Tensor:
        from captum.attr import GuidedGradCam

        made = GuidedGradCam(net.module, net.site)
        return made.attribute(net.x, target=net.target, interpolate_mode="bilinear")

    return Contender("captum", run, differs=differs)


def captum_noise(kind: str, samples: int, fraction: float, tuned: bool) -> Contender:
    def run(net: Network) -> Tensor:
        from captum.attr import NoiseTunnel, Saliency

        spread = float(net.x.max() - net.x.min()) * fraction
        batch = TUNED_BATCH if tuned else None
        words = {"nt_type": kind, "nt_samples": samples, "nt_samples_batch_size": batch, "stdevs": spread}
        return NoiseTunnel(Saliency(net.module)).attribute(net.x, target=net.target, abs=False, **words)

    return Contender(_tuned("captum", tuned), run, differs="other random numbers")


def captum_integrated_gradients(steps: int, tuned: bool) -> Contender:
    def run(net: Network) -> Tensor:
        from captum.attr import IntegratedGradients

        batch = TUNED_BATCH if tuned else None
        return IntegratedGradients(net.module).attribute(
            net.x, target=net.target, n_steps=steps, internal_batch_size=batch
        )

    kinks = None if tuned else "a batch of 50 rounds otherwise, which counts at ReLU6's kinks; in float64 they agree"
    return Contender(_tuned("captum", tuned), run, differs=kinks)


def captum_gradient_shap(samples: int, fraction: float) -> Contender:
    """Its only batch is all samples at once."""

    def run(net: Network) -> Tensor:
        from captum.attr import GradientShap

        spread = float(net.x.max() - net.x.min()) * fraction
        words = {"baselines": net.starts, "n_samples": samples, "stdevs": spread}
        return GradientShap(net.module).attribute(net.x, target=net.target, **words)

    return Contender("captum", run, differs="other random numbers")


def _tuned(name: str, tuned: bool) -> str:
    return f"{name}, batches of {TUNED_BATCH}" if tuned else name


# ------------------------------------------------------------------------------------------- grad-cam, torchcam, zennit


def grad_cam(name: str, differs: str | None = None) -> Contender:
    """pytorch-grad-cam: the map comes back scaled to [0, 1] and enlarged to the image."""

    def run(net: Network) -> Tensor:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with getattr(pytorch_grad_cam, name)(model=net.module, target_layers=[net.site]) as cam:
            return torch.from_numpy(cam(input_tensor=net.x, targets=[ClassifierOutputTarget(net.target)]))

    return Contender("grad-cam", run, as_grad_cam, differs)


def grad_cam_full() -> Contender:
    def run(net: Network) -> Tensor:
        from pytorch_grad_cam import FullGrad
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with FullGrad(model=net.module, target_layers=[]) as cam:
            return torch.from_numpy(cam(input_tensor=net.x.clone(), targets=[ClassifierOutputTarget(net.target)]))

    return Contender("grad-cam", run, as_grad_cam, "grad-cam adds 1e-7 below the fraction")


def grad_cam_guided() -> Contender:
    """It exchanges the ReLUs of the module for good, so it gets a module of its own, made once."""

    def run(net: Network) -> Tensor:
        from pytorch_grad_cam import GuidedBackpropReLUModel

        found = GuidedBackpropReLUModel(net.spare, device=net.x.device)(net.x.clone(), target_category=net.target)
        return torch.from_numpy(found).permute(2, 0, 1)[None]

    return Contender("grad-cam", run, differs="sees nn.ReLU only: no ReLU6, no function")


def as_grad_cam(net: Network, heat: Tensor) -> Tensor:
    from pytorch_grad_cam.utils.image import scale_cam_image

    positive = heat.clamp(min=0).detach().cpu().numpy()
    return torch.from_numpy(scale_cam_image(scale_cam_image(positive, tuple(net.x.shape[:1:-1]))))


def torchcam(name: str, differs: str | None = None, words: Mapping[str, Any] | None = None) -> Contender:
    def run(net: Network) -> Tensor:
        from torchcam import methods

        given = {k: v(net) for k, v in (words or {}).items()}
        with getattr(methods, name)(net.module, net.layer, **given) as extract:
            return extract(net.target, net.module(net.x), normalized=False)[0]

    return Contender("torchcam", run, differs=differs)


def torchcam_cam() -> Contender:
    """Class activation maps of the layer in front of the pooling, read by the last layer with weights."""

    def run(net: Network) -> Tensor:
        from torchcam.methods import CAM

        head = [name for name, m in net.module.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
        layer = "features" if head.startswith("classifier") else net.layer
        with CAM(net.module, layer, head) as extract, torch.no_grad():
            net.module(net.x)
            return extract(net.target, normalized=False)[0]

    return Contender("torchcam", run, differs="with a convolution as head it leaves out the rectifier behind it")


def zennit(
    attributor: str, differs: str | None = None, composite: str = "", times_input: bool = False, **words: Any
) -> Contender:
    def run(net: Network) -> Tensor:
        from zennit import attribution, composites

        rules = getattr(composites, composite)() if composite else None
        pick = torch.nn.functional.one_hot(torch.tensor([net.target], device=net.x.device), CLASSES).to(net.x)
        with getattr(attribution, attributor)(net.module, composite=rules, **words) as made:
            _, found = made(net.x.clone().requires_grad_(), pick)
        return found * net.x if times_input else found

    return Contender("zennit", run, differs=differs)


def one_after_the_other(name: str, parts: Sequence[tuple[str, Contender]]) -> Contender:
    """Several calls of other libraries as one piece of work."""

    def run(net: Network) -> None:
        for work, part in parts:
            try:
                part.run(net)
            except ImportError:
                raise
            except Exception as error:
                raise RuntimeError(f"{work} by {part.name}: {error}") from error

    return Contender(name, run)
