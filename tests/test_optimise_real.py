"""Made pictures of a network trained on ImageNet, held against photographs."""

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

import pellucid as pel
from pellucid.core.watch import Watch
from pellucid.inside.opened import Unit, opened
from pellucid.inside.optimise.making import optimise

pytestmark = pytest.mark.slow
LAYERS = ("features.3", "features.6", "features.9", "features.12")


@pytest.fixture(scope="module")
def squeezenet(data):
    net = torchvision.models.squeezenet1_1()
    weights = load_file(data / "imagenet" / "squeezenet1_1_fp16.safetensors")
    net.load_state_dict({name: w.float() for name, w in weights.items()})
    fed = pel.preprocess(resize_px=(256, 256), crop_px=227, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return pel.wrap(net.eval(), preprocess=fed, name="squeezenet1_1")


def test_pictures_excite_their_units_more_than_photographs_do(squeezenet, data):
    folders = [data / "imagenet_sample", data / "coco_loc"]
    files = [f for folder in folders for f in sorted(folder.rglob("*.[jJ][pP]*[gG]"))]
    fed = squeezenet.preprocess
    inputs = [fed.normalise(fed(pel.decode(f)).pixels) for f in files]
    asked = [Unit(layer, k) for layer in LAYERS for k in (7, 40, 90)]
    found = optimise(squeezenet, asked, steps=96)
    watch = Watch(opened(squeezenet).trace, LAYERS)
    with torch.no_grad():
        seen = [watch(x[None]) for x in inputs]
        made = watch(fed.normalise(torch.from_numpy(found.eight_bit).permute(0, 3, 1, 2).float() / 255))
    means = [np.array([float(s[LAYERS.index(u.layer)][0, u.channel].mean()) for s in seen]) for u in asked]
    limits = np.array([np.quantile(m, 0.999) for m in means])
    assert len(files) > 60 and np.mean(np.array(found.values) > limits) >= 0.9
    maps = [made[LAYERS.index(u.layer)][:, u.channel].mean((1, 2)) for u in asked]
    assert np.allclose([float(m[i]) for i, m in enumerate(maps)], found.values, rtol=1e-3)
    wrong = np.array([float(m[i - 1]) for i, m in enumerate(maps)])
    assert (np.array(found.values) > wrong).all() and np.mean(wrong > limits) < 0.5
    assert not [note for note in found.notes if "excited" in note]
