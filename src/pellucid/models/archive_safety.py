"""Look through a `.pt2` archive before torch opens it, and refuse whatever could run code.

`torch.export.load` falls back to full unpickling, evaluates symbolic sizes as Python (`sympy.sympify`), imports what a
tree description names, writes names from the archive into source code that it executes, and opens compiled libraries.
So everything in an archive must be of a known, harmless shape; what is not known is refused:

- files: the graph `models/model.json`, raw tensors, their two lists, and sample inputs that `weights_only=True` reads;
- no pickled weight, constant or custom object, no compiled code (AOTInductor), none of the formats before torch 2.8;
- operators: ATen, prims and quantized ones, torchvision's, arithmetic on sizes, a few with sub-graphs; no file access;
- names that are plain identifiers, tree descriptions of tuples, lists and dicts, sizes made of arithmetic.

Source: torch 2.13, `torch/export/pt2_archive/_package.py` and `torch/_export/serde/serialize.py`.
"""

import io
import json
import re
from collections.abc import Iterator
from keyword import iskeyword
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from pellucid.core.errors import ModelError

GRAPH = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
LISTS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
PLAIN_FILE = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment|"
    r"data/weights/weight_\d+|data/constants/tensor_\d+|extra/[\w./-]+"
)
OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|torchvision)\.(?!save\.|from_file\.)\w+\.\w+|"
    r"torch\.ops\.higher_order\.(cond|wrap_with_set_grad_enabled|wrap_with_autocast|while_loop|scan|map_impl)|"
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|xor|getitem|"
    r"lshift|rshift)|math\.(ceil|floor|trunc|sqrt|pow)|torch\.sym_(int|float|max|min|not|sum|ite|sqrt)|torch\._sym_sqrt"
)
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
PLAIN = re.compile(r"[\w.:+\-]*", re.ASCII)
STACK = re.compile(
    r"[\w.,;:+@$\-\[\]()<> ]*", re.ASCII
)  # module paths; no quote and no line break gets out of a string
SIZE_TOKEN = re.compile(
    r"\s*('(?P<symbol>\w+)'|(?P<word>[A-Za-z_]\w*)|\d+(\.\d+)?(e[+-]?\d+)?|\*\*|[<>=!]=|[()+\-*/%,<>=&|~])\s*"
)
SIZE_WORDS = frozenset(
    """Symbol Integer Float Rational Add Mul Pow Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv ModularIndexing Where
    CeilToInt FloorToInt TruncToInt RoundToInt RoundDecimal TruncToFloat ToFloat LShift RShift PowByNatural FloatPow
    FloatTrueDiv IntTrueDiv Identity IsNonOverlappingAndDenseIndicator Eq Ne Lt Le Gt Ge Equality Unequality
    GreaterThan LessThan StrictGreaterThan StrictLessThan And Or Not true false True False positive nonnegative
    integer real precision""".split()
)
TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
INERT = ("stack_trace", "custom", "from_node", "as_string", "as_strings")  # only ever kept or printed as data


def refuse_code(path: Path) -> None:
    """Return silently if nothing in the archive could run code.

    Raises:
        ModelError: the first thing found that could, or that is not known to be harmless.
    """
    try:
        from torch.export.pt2_archive import PT2ArchiveReader
    except ImportError as error:
        raise ModelError(f"reading {path} needs torch 2.8 or newer, this is {torch.__version__}") from error
    refuse_inflated(path)
    _refuse_old_format(path)
    try:
        archive = PT2ArchiveReader(str(path))
        names = archive.get_file_names()
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"{path} is no archive of torch.export.save; {_again()}") from error
    for name in names:
        if name not in (GRAPH, SAMPLES, *LISTS) and not PLAIN_FILE.fullmatch(name):
            raise _refusal(path, f'the part "{name}"')
    if GRAPH not in names:
        raise ModelError(f"{path} holds no exported network; {_again()}")
    for name in LISTS:
        _look_at_list(path, _parsed(path, archive.read_bytes(name)) if name in names else {})
    _look_at_samples(path, archive.read_bytes(SAMPLES) if SAMPLES in names else b"")
    _look_at(path, _parsed(path, archive.read_bytes(GRAPH)), "")


def refuse_inflated(path: Path) -> None:
    """Return silently if an archive holds no more than its own size; torch never compresses, a bomb does.

    Raises:
        ModelError: it would grow on reading, or is no readable archive.
    """
    try:
        with ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"{path} can't be read as an archive ({error}); copy the file again, or save or export it again"
        ) from error
    if size > path.stat().st_size:
        raise ModelError(
            f"{path} would unpack to {size:,} bytes from {path.stat().st_size:,}, which no file of torch.save or "
            "torch.export.save does; it is refused unopened: save it again"
        )


def harmless_size(expression: str) -> bool:
    """Whether a symbolic size is arithmetic on symbols and numbers, and nothing else."""
    place = 0
    while place < len(expression):
        token = SIZE_TOKEN.match(expression, place)
        word = token["word"] if token else None
        if token is None or (word and word not in SIZE_WORDS and not re.fullmatch(r"[a-z]{1,3}\d+", word)):
            return False
        place = token.end()
    return True


def _refuse_old_format(path: Path) -> None:
    try:
        with ZipFile(path) as archive:
            if {"version", "serialized_exported_program.json"} & set(archive.namelist()):
                raise ModelError(
                    f"{path} was exported by a torch before 2.8, in a format that needs pickles; {_again()}"
                )
    except (BadZipFile, OSError) as error:
        raise ModelError(f"{path} can't be read as an archive ({error}); {_again()}") from error


def _look_at_list(path: Path, found: Any) -> None:
    entries = found.get("config", {}) if isinstance(found, dict) else {"": found}
    for name, entry in entries.items():
        file = entry.get("path_name", "") if isinstance(entry, dict) else ""
        if (
            not isinstance(entry, dict)
            or entry.get("use_pickle")
            or not re.fullmatch(r"(weight|tensor)_\d+", str(file))
        ):
            raise _refusal(path, f'the pickled entry "{name}"')
        _look_at(path, entry, name)


def _look_at_samples(path: Path, pickled: bytes) -> None:
    if not pickled:
        return
    try:
        torch.load(io.BytesIO(pickled), weights_only=True)
    except Exception as error:  # torch.load raises many kinds; any of them would make torch unpickle in full
        raise _refusal(path, "pickled objects among the sample inputs") from error


def _look_at(path: Path, found: Any, key: str) -> None:
    """Every string of the JSON, each by the rule for its key."""
    for name, text in _strings(found, key):
        if not _harmless(name, text):
            raise _refusal(path, f'{name or "a name"} = "{text[:80]}"')


def _strings(found: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string with the key it stands under; without recursion, so that depth is no way out."""
    waiting = [(key, found)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            yield from (("", str(inner)) for inner in value)
            waiting += [(str(inner), deeper) for inner, deeper in value.items()]
        elif isinstance(value, list):
            waiting += [(name, deeper) for deeper in value]
        elif isinstance(value, str):
            yield name, value


def _harmless(key: str, text: str) -> bool:
    if key in INERT:
        return True
    if key in ("target", "as_operator"):
        return OPERATOR.fullmatch(text) is not None
    if key in ("name", "as_name", "forward_arg_names"):
        return not text or (IDENTIFIER.fullmatch(text) is not None and not iskeyword(text))
    if key == "expr_str":
        return harmless_size(text)
    if key in ("in_spec", "out_spec"):
        return not text or _harmless_tree(text)
    return (STACK if key in ("nn_module_stack", "torch_fn", "source_fn_stack") else PLAIN).fullmatch(text) is not None


def _harmless_tree(text: str) -> bool:
    """Whether a tree description is made of tuples, lists and dicts with plain keys."""
    try:
        _, tree = json.loads(text)
        nodes = [tree]
        while nodes:
            node = nodes.pop()
            keys = json.loads(node["context"]) if node["context"] else None
            plain = keys is None or all(
                isinstance(k, str) and IDENTIFIER.fullmatch(k) and not iskeyword(k) for k in keys
            )
            if node["type"] not in TREES or not plain:
                return False
            nodes += node["children_spec"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return True


def _parsed(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({error}); {_again()}") from error


def _refusal(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} holds {what}, which could run code, or is unknown here; the file is refused unopened: "
        "name the network as package.module:factory and give its weights as .safetensors"
    )


def _again() -> str:
    return "export it again: torch.export.save(torch.export.export(net.eval(), (example,)), FILE)"
