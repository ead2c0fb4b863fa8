"""`FILE.pt2`: a network saved by `torch.export.save`, with its facts in a JSON file beside it."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.core.errors import ModelError
from pellucid.models.archive_safety import refuse_code
from pellucid.models.libraries import quiet
from pellucid.models.model import Model, preprocess_of, read_json, read_labels


def load_export(path: Path) -> Model:
    """A network exported by torch, opened only after `archive_safety.refuse_code` has looked through it.

    Its layers keep the names they had (`torch.export.unflatten`); where torch can't restore them, the network is
    flat and a note says so. It works as exported: in evaluation mode, on the input sizes it was exported for.
    Labels and preprocessing come from `FILE.json` beside it: `{"labels": [...], "preprocess": {...}}`.

    Raises:
        ModelError: no such file, not an archive of torch, one that could run code, or exported in training mode.
    """
    if not path.is_file():
        raise ModelError(
            f"no file {path}; save one with torch.export.save(torch.export.export(net.eval(), (example,)), FILE)"
        )
    refuse_code(path)
    try:
        with quiet("torch.export", "torch.export.pt2_archive._package"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.load(str(path))
            _refuse_training(exported, path)
            module, notes = _module(exported)
    except ModelError:
        raise
    except Exception as error:  # torch.export raises many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModelError(
            f"torch {torch.__version__} can't open {path} ({reason}); export it again with this torch"
        ) from error
    for layer in module.modules():
        layer.training = False
    facts = _beside(path)
    where = str(path.with_suffix(".json"))
    preprocess = preprocess_of(facts["preprocess"], where) if facts.get("preprocess") is not None else None
    return Model(module, path.name, preprocess, read_labels(facts.get("labels")), (*notes, *_sizes(exported)))


def _module(exported: torch.export.ExportedProgram) -> tuple[nn.Module, tuple[str, ...]]:
    try:
        return torch.export.unflatten(exported), ()
    except Exception:  # any failure leaves the flat form, which torch always has
        return exported.module(), ("the layers of this exported network have lost their names",)


def _refuse_training(exported: torch.export.ExportedProgram, path: Path) -> None:
    """An exported graph has its mode built in: batch statistics and dropout must be off."""
    for node in exported.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            continue
        given = {a.name: v for a, v in zip(schema.arguments, node.args, strict=False)} | dict(node.kwargs)
        name = schema.name.removeprefix("aten::")
        if given.get("train") is True or (given.get("training") is True and "norm" in name):
            raise ModelError(
                f"{path} was exported in training mode ({name} in training); call net.eval() before torch.export.export"
            )


def _sizes(exported: torch.export.ExportedProgram) -> tuple[str, ...]:
    """What input the export was made for, where that is fixed."""
    wanted = [
        node.meta["val"].shape for node in exported.graph.nodes if node.name in exported.graph_signature.user_inputs
    ]
    shapes = [" × ".join(str(side) if isinstance(side, int) else "any" for side in shape) for shape in wanted]
    return tuple(f"exported for inputs of {shape}; other sizes need dynamic_shapes at export" for shape in shapes)


def _beside(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    facts = read_json(beside)
    if not isinstance(facts, dict):
        shown = json.dumps({"labels": ["cat", "dog"], "preprocess": {"resize_px": 256, "crop_px": 224}})
        raise ModelError(f"{beside} should look like {shown}")
    return facts
