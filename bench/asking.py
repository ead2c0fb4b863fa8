"""How each library is called for work that asks the network many times: covering, masks, regions, channels."""

from collections.abc import Callable
from typing import Any

import torch
from nets import SIDE_PX, Network
from peers import TUNED_BATCH, Contender, as_grad_cam
from torch import Tensor

ACROSS = 7  # regions along each side of the grid that every library gets
REGION_PX = SIDE_PX // ACROSS
RANDOM = "other random numbers"


def grid_labels() -> Tensor:
    """The regions of the grid, `(224, 224)`, from 0 on."""
    along = torch.arange(SIDE_PX) // REGION_PX
    return along[:, None] * ACROSS + along


def pellucid_idle(method: str, **settings: Any) -> Contender:
    """A method on a network that costs next to nothing: what is left is its book-keeping."""

    def run(net: Network) -> Tensor:
        import pellucid as pel

        asked = pel.METHODS[method](**settings)
        return pel.attribute(net.idle, net.x, methods=asked, targets=net.target)[0].attribution

    return Contender("pellucid", run)


def captum_occlusion(window_px: int, stride_px: int) -> Contender:
    """Its map has the same value in all channels."""

    def run(net: Network) -> Tensor:
        from captum.attr import Occlusion

        words = {"sliding_window_shapes": (3, window_px, window_px), "strides": (3, stride_px, stride_px)}
        return Occlusion(net.module).attribute(
            net.x, target=net.target, baselines=0, perturbations_per_eval=TUNED_BATCH, **words
        )

    return Contender("captum", run, lambda net, mine: mine[:, None].expand(-1, net.x.shape[1], -1, -1))


def captum_regions(name: str, samples: int) -> Contender:
    """Lime or KernelShap on the grid, zeros as fill."""

    def run(net: Network) -> Tensor:
        from captum import attr

        words = {"n_samples": samples, "perturbations_per_eval": TUNED_BATCH, "feature_mask": grid_labels()}
        return getattr(attr, name)(net.module).attribute(net.x, target=net.target, baselines=0, **words)

    return Contender("captum", run, differs=RANDOM)


def lime_package(samples: int, slic: bool = False) -> Contender:
    """Pictures are NumPy arrays there, with the colours last; on the grid, or on its own SLIC."""

    def run(net: Network) -> Tensor:
        from lime.lime_image import LimeImageExplainer
        from lime.wrappers.scikit_image import SegmentationAlgorithm

        def classify(pictures: Any) -> Any:
            return _asked(net, torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in pictures]).to(net.x)).numpy()

        image = net.x[0].permute(1, 2, 0).double().numpy()
        segment = SegmentationAlgorithm("slic", n_segments=ACROSS**2) if slic else lambda _: grid_labels().numpy()
        found = LimeImageExplainer().explain_instance(
            image,
            classify,
            (net.target,),
            0,
            None,
            num_samples=samples,
            batch_size=TUNED_BATCH,
            segmentation_fn=segment,
        )
        weights = dict(found.local_exp[net.target])
        labels = torch.from_numpy(found.segments).long()
        return torch.tensor([weights.get(i, 0.0) for i in range(int(labels.max()) + 1)])[labels][None]

    return Contender("lime", run, differs=RANDOM)


def shap_package(samples: int) -> Contender:
    """Its KernelExplainer takes a function of who is present; the covering is the user's."""

    def run(net: Network) -> Tensor:
        from shap import KernelExplainer

        def ask(present: Any) -> Any:
            parts = torch.from_numpy(present).to(net.x).split(TUNED_BATCH)
            return torch.cat([_asked(net, net.x * p[:, grid_labels()][:, None])[:, net.target] for p in parts]).numpy()

        everybody = torch.ones(1, ACROSS**2).numpy()
        shares = KernelExplainer(ask, 0 * everybody).shap_values(everybody, nsamples=samples, l1_reg=False, silent=True)
        return torch.from_numpy(shares).view(-1)[grid_labels()][None]

    return Contender("shap", run, differs=RANDOM)


def _asked(net: Network, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.module(x)


def grad_cam_replayed(name: str, differs: str | None, batch: int | None = None) -> Contender:
    """ScoreCAM and AblationCAM; the latter puts a layer of its own into the module, so it gets another one."""

    def run(net: Network) -> Tensor:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        words = {} if batch is None else {"batch_size": batch}
        layers = [net.ablated.get_submodule(net.layer)]
        with getattr(pytorch_grad_cam, name)(model=net.ablated, target_layers=layers, **words) as cam:
            return torch.from_numpy(cam(input_tensor=net.x, targets=[ClassifierOutputTarget(net.target)]))

    return Contender("grad-cam", run, as_grad_cam, differs)


def channels(plus: int = 0) -> Callable[[Network], float]:
    """How many channels the layer has that every CAM reads, and so many more."""

    def count(net: Network) -> float:
        found: list[int] = []
        handle = net.site.register_forward_hook(lambda module, inputs, output: found.append(output.shape[1]))
        with torch.no_grad():
            net.module(net.x)
        handle.remove()
        return found[0] + plus

    return count
