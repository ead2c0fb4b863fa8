"""Train `builtin:photos` on CIFAR-10 and write its weights and its figures.

    python scripts/train_photos.py ../shared/data/cifar10 --epochs 30 --seed 0

Reads `train.zip` and `test.zip` (JPEGs, one folder a class), keeps the last 2 000 training pictures
of the shuffled order apart for watching progress (no choice is made by them), and writes
`photos.safetensors` with the training facts in `photos.json`. The test set is looked at once, at the end.
"""

import argparse
import io
import json
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.models.networks import PhotoNet

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WEIGHTS = Path(__file__).parents[1] / "src/pellucid/models/weights"


def read(path: Path) -> tuple[Tensor, Tensor]:
    """All pictures of a zip as uint8 `(n, 3, 32, 32)` and their labels `(n,)`."""
    pictures, labels = [], []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            pictures.append(np.asarray(picture))
            labels.append(CLASSES.index(Path(name).parent.name))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def normalise(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((x.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(x: Tensor, random: torch.Generator) -> Tensor:
    """Random crop after reflecting 4 pixels, flip, brightness and contrast, one grey 8×8 hole."""
    n = len(x)
    padded = F.pad(x.float(), (4, 4, 4, 4), mode="reflect")
    dy, dx = torch.randint(0, 9, (2, n), generator=random)
    rows = (dy[:, None] + torch.arange(32))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(32))[:, None, None, :]
    x = padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
    flip = torch.rand(n, generator=random) < 0.5
    x[flip] = x[flip].flip(3)
    gain = 1 + 0.4 * (torch.rand(n, 1, 1, 1, generator=random) - 0.5)
    shift = 40 * (torch.rand(n, 1, 1, 1, generator=random) - 0.5)
    x = ((x - 127.5) * gain + 127.5 + shift).clamp(0, 255)
    top, left = torch.randint(0, 25, (2, n), generator=random)
    inside = lambda start: (torch.arange(32) >= start[:, None]) & (torch.arange(32) < start[:, None] + 8)  # noqa: E731
    hole = inside(top)[:, None, :, None] & inside(left)[:, None, None, :]
    return torch.where(hole, 127.5, x)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        hits = sum(
            (model(normalise(a)).argmax(1) == b).sum().item() for a, b in zip(x.split(500), y.split(500), strict=True)
        )
    return hits / len(y)


def fit(x: Tensor, y: Tensor, epochs: int, seed: int, batch: int, peak: float, held_out: int = 2000) -> PhotoNet:
    """SGD with Nesterov momentum, one-cycle learning rate, label smoothing 0.1, weight decay 5e-4, bfloat16."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=random)
    x, y, watch_x, watch_y = x[order[:-held_out]], y[order[:-held_out]], x[order[-held_out:]], y[order[-held_out:]]
    model = PhotoNet(len(CLASSES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=peak, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        model.train()
        start, total = time.perf_counter(), 0.0
        for rows in torch.randperm(len(x), generator=random)[: len(x) // batch * batch].split(batch):
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(normalise(augment(x[rows], random)))
            loss = F.cross_entropy(scores.float(), y[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        seconds, right = time.perf_counter() - start, accuracy(model, watch_x, watch_y)
        print(f"epoch {epoch + 1}/{epochs} loss {total / len(x):.4f} held-out {right:.4f} {seconds:.0f} s", flush=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--peak", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--measure", action="store_true", help="only measure the shipped weights on the test pictures")
    args = parser.parse_args()
    if args.measure:
        model = PhotoNet(len(CLASSES))
        model.load_state_dict(load_file(args.out / "photos.safetensors"))
        print(f"test accuracy {accuracy(model, *read(args.data / 'test.zip')):.4f}")
        return
    start = time.perf_counter()
    model = fit(*read(args.data / "train.zip"), args.epochs, args.seed, args.batch, args.peak)
    test = accuracy(model, *read(args.data / "test.zip"))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, args.out / "photos.safetensors")
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
        "test_accuracy": test,
        "train_seconds": round(time.perf_counter() - start),
    }
    (args.out / "photos.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
