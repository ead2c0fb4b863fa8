"""Try relevance methods and DeepLIFT on every torchvision classifier and on more than sixty timm networks.

    python scripts/relevance_zoo.py                        # prints the table and the counts
    python scripts/relevance_zoo.py --write                # also writes docs/tables/relevance_zoo.md
    python scripts/relevance_zoo.py resnet18 timm:dla34    # some

Random weights in float64, nothing at its idle starting value. *pass*: every operation has a faithful rule and the
receipt's conservation (or summation to delta) holds to 1e-6; *approximate*: the method said so; *refuse*: it said which
operation; *FAIL*: neither. A network that can't be built or run here is listed with the reason.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from networks import zoo  # noqa: E402
from pellucid.core.errors import PellucidError  # noqa: E402
from pellucid.core.progress import Progress  # noqa: E402
from pellucid.core.record import record  # noqa: E402
from pellucid.core.target import logit  # noqa: E402
from pellucid.methods import METHODS  # noqa: E402
from pellucid.methods.run import Plan, run  # noqa: E402
from shim import define_missing_torchvision_operators  # noqa: E402

TRIED = ("lrp", "deep_taylor", "excitation_backprop", "sglrp", "deep_lift")
BOUND = 1e-6
HYBRID = (  # networks with self-attention
    "vit", "swin", "maxvit", "coat", "levit", "botne", "xcit", "convit", "pit_", "halonet", "lambda", "edgenext",
)  # fmt: skip
TIMM = """
bat_resnext26ts coatnet_nano_rw_224 convmixer_768_32 convnext_atto convnext_pico convnextv2_atto cs3darknet_s
cspdarknet53 cspresnet50 cspresnext50 darknet17 darknet21 densenet121 dla34 dla46_c dla60_res2net dpn48b dpn68
eca_botnext26ts_256 eca_resnet33ts ecaresnet26t edgenext_xx_small efficientnet_b0 efficientnet_es efficientnet_lite0
efficientnetv2_rw_t ese_vovnet19b_dw fbnetc_100 gcresnet33ts gernet_s ghostnet_050 ghostnetv2_100 halonet26t
hardcorenas_a hgnet_tiny hrnet_w18_small inception_next_tiny inception_resnet_v2 inception_v3 inception_v4
lambda_resnet26t lcnet_050 legacy_senet154 levit_128s mixnet_s mnasnet_small mobilenetv1_100 mobilenetv2_050
mobilenetv3_small_050 mobilenetv4_conv_small mobileone_s0 mobilevit_xxs mobilevitv2_050 nf_resnet26 nfnet_l0
pit_ti_224 poolformer_s12 regnetv_040 regnetx_002 regnety_002 regnetz_b16 repghostnet_050 repvgg_a0 repvit_m0_9
res2net50_14w_8s resmlp_12_224 resnest14d resnet10t resnet14t resnet18 resnet18d resnet26 resnet50 resnet50_gn
resnetblur50 resnetrs50 resnetv2_50 resnext26ts rexnet_100 sebotnet33ts_256 selecsls42 semnasnet_050 seresnet18
seresnext26d_32x4d skresnet18 spnasnet_100 starnet_s1 tf_efficientnet_b0 tf_mixnet_s tiny_vit_5m_224 tinynet_e
tresnet_m vgg11 vgg11_bn vit_tiny_patch16_224 vovnet39a wide_resnet50_2 xception41 xcit_nano_12_p16_224
""".split()


def built(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network in float64 with random weights, and an input."""
    if not name.startswith("timm:"):
        return zoo.build(name).double(), zoo.picture(name, dtype=torch.float64)
    import timm

    torch.manual_seed(0)
    module = timm.create_model(name.removeprefix("timm:"), pretrained=False).eval()
    zoo.wake(module)
    fixed = timm.data.resolve_model_data_config(module)["input_size"]
    side = fixed[1] if any(word in name for word in (*HYBRID, "resmlp", "halonet", "lambda", "tiny_vit", "256")) else 96
    zoo.settle(module, torch.randn(4, fixed[0], side, side))
    return module.double(), torch.randn(1, fixed[0], side, side, dtype=torch.float64)


def tried(trace: object, method: str) -> str:
    """pass, approximate, refuse or FAIL, with the reason."""
    try:
        outcome = run(trace, Plan([METHODS[method]], [logit(1)], [], progress=Progress()))[0]  # type: ignore[arg-type]
    except PellucidError as error:
        return f"refuse: {error}"
    receipt = outcome.receipts[0]
    sums = [c for c in receipt.checks if c.name in ("conservation error", "summation-to-delta error")]
    closed = bool(sums) and all(abs(c.value) <= BOUND for c in sums)
    grown = [c for c in receipt.checks if c.name.startswith("largest relevance") and c.verdict == "fail"]
    if receipt.approximate:
        return "approximate" if closed or method == "deep_lift" else "FAIL: approximate and not conserved"
    if not closed or not torch.isfinite(outcome.attribution).all():
        return f"FAIL: {[f'{c.name} {c.value:.1e}' for c in sums]}"
    return "pass, blow-up told" if grown else "pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    define_missing_torchvision_operators()
    names = args.names or [*zoo.torchvision_names(), *(f"timm:{name}" for name in TIMM)]
    rows, notes = [], []
    for name in names:
        began = time.perf_counter()
        try:
            module, x = built(name)
            trace = record(module, x)
        except Exception as error:
            why = " ".join(str(error).split())[:150]
            notes.append(f"{name}: {type(error).__name__}: {why}")
            continue
        found = [tried(trace, method) for method in TRIED]
        rows.append((name, found))
        print(name, [f[:90] for f in found], f"{time.perf_counter() - began:.1f} s", flush=True)
    text = table(rows, notes)
    print(text)
    if args.write:
        (ROOT / "docs/tables/relevance_zoo.md").write_text(text + "\n", encoding="utf-8")


def table(rows: list[tuple[str, list[str]]], notes: list[str]) -> str:
    """The rows as Markdown, with the counts above."""
    hybrids = [r for r in rows if any(word in r[0] for word in HYBRID)]
    plain = [r for r in rows if r not in hybrids]
    lines = ["<!-- made by scripts/relevance_zoo.py -->", "# Relevance on the zoo", ""]
    for title, some in (("Convolutional networks", plain), ("Hybrids and transformers", hybrids)):
        lines.append(f"{title}: {len(some)}.\n")
        for place, method in enumerate(TRIED):
            kinds = Counter(found[place].partition(":")[0].partition(",")[0] for _, found in some)
            counts = ", ".join(f"{kinds[k]} {k}" for k in ("pass", "approximate", "refuse", "FAIL") if kinds[k])
            lines.append(f"- `{method}`: {counts}")
        lines.append("")
    lines += ["| network | " + " | ".join(f"`{m}`" for m in TRIED) + " |", "|---|" + "---|" * len(TRIED)]
    for name, found in rows:
        lines.append(f"| {name} | " + " | ".join(f.replace("|", "/")[:120] for f in found) + " |")
    if notes:
        lines += ["", "Not tried:", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
