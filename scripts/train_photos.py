"""Train `builtin:photos` on CIFAR-10 and write its weights and its figures.

    python scripts/train_photos.py ../shared/data/cifar10 --epochs 30 --seed 0 --out photos

Reads `train.zip` and `test.zip` (JPEGs, one folder a class), keeps 2 000 training pictures of a shuffled
order apart for watching progress (no choice is made by them: the weights of the last epoch are kept), and writes
`photos.safetensors` with the training facts in `photos.json`. The test set is looked at once, at the end.
`--checkpoint FILE` is written after each epoch; with `--resume` the training goes on from it.
"""

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from pellucid.core.progress import Progress
from pellucid.models.networks import PhotoNet
from pellucid.models.untrained import seeded
from pellucid.store import whole_folder, write_tensors, write_text
from pellucid.training import Standardise, accuracy, fit

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WEIGHTS = Path(__file__).parents[1] / "src/pellucid/models/weights"
HELD_OUT = 2000


def read(path: Path) -> tuple[Tensor, Tensor]:
    """All pictures of a zip as uint8 `(n, 3, 32, 32)` and their labels `(n,)`."""
    pictures, labels = [], []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            pictures.append(np.asarray(picture))
            labels.append(CLASSES.index(Path(name).parent.name))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def augment(x: Tensor, random: Generator) -> Tensor:
    """Random crop after reflecting 4 pixels, flip, brightness and contrast, one grey 8×8 hole; floats in [0, 1]."""
    n = len(x)
    padded = F.pad(x.float() / 255, (4, 4, 4, 4), mode="reflect")
    dy, dx = torch.randint(0, 9, (2, n), generator=random)
    rows = (dy[:, None] + torch.arange(32))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(32))[:, None, None, :]
    x = padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
    flip = torch.rand(n, generator=random) < 0.5
    x[flip] = x[flip].flip(3)
    gain = 1 + 0.4 * (torch.rand(n, 1, 1, 1, generator=random) - 0.5)
    shift = 0.16 * (torch.rand(n, 1, 1, 1, generator=random) - 0.5)
    x = ((x - 0.5) * gain + 0.5 + shift).clamp(0, 1)
    top, left = torch.randint(0, 25, (2, n), generator=random)
    inside = lambda start: (torch.arange(32) >= start[:, None]) & (torch.arange(32) < start[:, None] + 8)  # noqa: E731
    hole = inside(top)[:, None, :, None] & inside(left)[:, None, None, :]
    return torch.where(hole, 0.5, x)


def on_test_pictures(module: nn.Module, data: Path) -> float:
    return accuracy(module, *read(data / "test.zip"), prepare=Standardise(MEAN, STD))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--peak", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--overwrite", action="store_true", help="replace photos.safetensors and photos.json")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--measure", action="store_true", help="only measure the shipped weights on the test pictures")
    args = parser.parse_args()
    if args.measure:
        module = PhotoNet(len(CLASSES))
        module.load_state_dict(load_file(args.out / "photos.safetensors"))
        print(f"test accuracy {on_test_pictures(module, args.data):.4f}")
        return
    if (args.out / "photos.safetensors").exists() and not args.overwrite:
        parser.error(f"{args.out / 'photos.safetensors'} exists already; add --overwrite or name another --out")
    train(args)


def told(done: int, total: int, label: str) -> None:
    if done % 100 == 0:
        print(f"{done}/{total} {label}", flush=True)


def train(args: argparse.Namespace) -> None:
    """SGD with Nesterov momentum, one-cycle learning rate, label smoothing 0.1, weight decay 5e-4, bfloat16."""
    with seeded(args.seed):
        module = PhotoNet(len(CLASSES))
    x, y = read(args.data / "train.zip")
    order = torch.randperm(len(x), generator=Generator().manual_seed(args.seed))
    kept, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    history = fit(
        module, x[kept], y[kept], epochs=args.epochs, batch=args.batch, peak_learning_rate=args.peak, seed=args.seed,
        optimizer="sgd", weight_decay=5e-4, label_smoothing=0.1, precision="bfloat16", prepare=Standardise(MEAN, STD),
        augment=augment, checkpoint=args.checkpoint, resume=args.resume,
        progress=Progress(on_event=told),
    )  # fmt: skip
    watched = accuracy(module, x[held_out], y[held_out], prepare=Standardise(MEAN, STD))
    facts = {
        "classes": CLASSES,
        "mean": MEAN,
        "std": STD,
        "input_px": 32,
        "epochs": args.epochs,
        "batch": args.batch,
        "peak_learning_rate": args.peak,
        "seed": args.seed,
        "torch": torch.__version__,
        "held_out_accuracy": watched,
        "test_accuracy": on_test_pictures(module, args.data),
        "train_seconds": round(history.seconds),
    }
    with whole_folder(args.out, overwrite=True) as folder:
        write_tensors(folder / "photos.safetensors", module.state_dict(), {"network": "photos"})
        write_text(folder / "photos.json", json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
