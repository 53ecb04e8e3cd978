"""A copy of a small model that has the base model's tokens, so that it can draft them.

SGLang 0.5.23 lets a model draft tokens only for one with as many rows and the same tokens under the same ids. The copy
has the base model's tokenizer, and the small model's row for each of its tokens. Whatever it drafts is checked by the
base model, so that the text cannot change; only how much of it is right.

A token that the small model does not know gets the mean of the rows that it knows. Its logit is then the mean of their
logits, which is below the largest of them in every state: such a token is never the likeliest. A row of zeros would
have the logit 0, and be the likeliest wherever all others are negative.

Tensors go from file to file in pieces, so that no more than a piece is in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.servers.gpu.shapes import Shape, find, has_weights, weights_folder
from specreason_sgl.servers.gpu.vocabulary import NO_ROW, Match, Vocabulary, match
from specreason_sgl.servers.pairs import state_folder
from specreason_sgl.view.text import visible

PIECE = 1 << 24
"""Bytes that are in memory at a time."""
MOST_HEADER = 100_000_000
"""The most bytes of a file's header, as the format has it."""
METADATA = "__metadata__"
ALIGNED = 8
"""Tensors begin in a file at a multiple of so many bytes."""
NOTE = "fitted.json"
"""What a copy was made from; it is written last, so that a copy without it is not whole."""
INDEX = "model.safetensors.index.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
USAGE = 2
ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Types of rows whose mean can be taken, by their name in the file."""
BFLOAT16 = "BF16"


@dataclass(frozen=True)
class Drafter:
    """A copy that a pair needs."""

    base: Shape
    small: Shape
    match: Match
    """Which rows it has."""

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        both = self.small, self.base
        digest = hashlib.sha256("\n".join(str(_folder(shape).resolve()) for shape in both).encode()).hexdigest()[:8]
        return state_folder() / "drafts" / "-".join([*(Path(shape.name).name for shape in both), digest])

    @property
    def command(self) -> str:
        """The shell command that writes it."""
        return shlex.join(["python", "-m", "specreason_sgl.servers.gpu.drafter", self.base.name, self.small.name])

    def write(self) -> str:
        """Write it, unless it is there already; returns a line that says what was done.

        Raises:
            SpecReasonError: it cannot be written.
            UsageError: the small model's files are not understood.
        """
        done = (
            "is written to" if write_copy(_folder(self.small), _folder(self.base), self.match, self.folder) else "is in"
        )
        return (
            f"a copy of `{self.small.name}` with the tokens of `{self.base.name}` {done} `{self.folder}`: {self.match}"
        )


def planned(base: Shape, small: Shape) -> Drafter:
    """The copy of a small model that can draft tokens for a base model; nothing is written yet.

    Raises:
        UsageError: the two models cannot be compared here, or have other ordinary tokens.
    """
    vocabularies = [Vocabulary.read(_folder(shape), shape.vocab) for shape in (base, small)]
    if not has_weights(_folder(small)):
        raise UsageError(f"the weights of `{small.name}` are not here", hint=f"`hf download {small.name}`")
    return Drafter(base, small, match(*vocabularies))


def _folder(shape: Shape) -> Path:
    folder = weights_folder(shape.name)
    if folder is None:
        raise UsageError(f"`{shape.name}` is not here", hint=f"`hf download {shape.name}`")
    return folder


def write_copy(small: Path, base: Path, rows: Match, folder: Path) -> bool:
    """Write a copy, unless it is there already.

    Args:
        small: the small model's folder; nothing in it changes.
        base: the base model's folder, for its tokenizer.
        rows: which rows the copy has.
        folder: where the copy goes.

    Returns:
        Whether it was written.

    Raises:
        SpecReasonError: the copy cannot be written.
        UsageError: the small model's files are not understood.
    """
    try:
        note = _note(small, base, rows)
        if (folder / NOTE).is_file() and _read(folder / NOTE) == note:
            return False
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            made = Path(scratch) / "copy"
            made.mkdir()
            _write(small, base, rows.rows, made)
            (made / NOTE).write_text(json.dumps(note), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            made.replace(folder)
    except OSError as error:
        raise SpecReasonError(
            f"cannot write the copy of the small model in `{folder}`: {error.strerror or error}",
            hint="make room there, or name another folder in `SPECREASON_HOME`",
        ) from error
    return True


def _write(small: Path, base: Path, wanted: Sequence[int], made: Path) -> None:
    config, ends = _read(small / "config.json"), _read(base / "config.json")
    rows = config.get("vocab_size")
    config |= {"vocab_size": len(wanted), **{name: ends[name] for name in ENDS if name in ends}}
    (made / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER:
        if (base / name).is_file():
            shutil.copyfile(base / name, made / name)
    fitted = total = 0
    for shard in sorted(small.glob("*.safetensors")):
        try:
            with shard.open("rb") as source, (made / shard.name).open("wb") as target:
                found, written = _copy(source, target, rows, np.array(wanted))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"`{shard}` is no file of tensors: {error}", hint="download the small model again"
            ) from error
        fitted, total = fitted + found, total + written
    if not fitted:
        raise UsageError(
            f"no tensor in `{small}` has as many rows as its `vocab_size` says: {rows}",
            hint="so it cannot draft for another model: `--decode ngram`",
        )
    if (small / INDEX).is_file():
        index = _read(small / INDEX)
        told = {**index, "metadata": {**(index.get("metadata") or {}), "total_size": total}}
        (made / INDEX).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.begin

    def told(self) -> dict[str, Any]:
        """It as the file's header tells of it."""
        return {"dtype": self.dtype, "shape": self.shape, "data_offsets": (self.begin, self.end)}


def _copy(source: BinaryIO, target: BinaryIO, rows: object, wanted: NDArray[np.int64]) -> tuple[int, int]:
    """Copy a file of tensors, with other rows in those that have as many rows as the vocabulary.

    Returns:
        How many tensors have other rows, and the bytes of all tensors.
    """
    size = int.from_bytes(source.read(8), "little")
    if size > MOST_HEADER:
        raise ValueError("its header has no end")
    header = json.loads(source.read(size))
    more = {name: told for name, told in header.items() if name == METADATA}
    old = [
        _Tensor(name, told["dtype"], tuple(told["shape"]), *told["data_offsets"])
        for name, told in header.items()
        if name != METADATA
    ]
    new, place = [], 0
    for tensor in sorted(old, key=lambda tensor: tensor.begin):
        is_fitted = tensor.shape[:1] == (rows,)
        shape = (len(wanted), *tensor.shape[1:]) if is_fitted else tensor.shape
        end = place + (tensor.size // tensor.shape[0] * len(wanted) if is_fitted else tensor.size)
        new.append((tensor, is_fitted, _Tensor(tensor.name, tensor.dtype, shape, place, end)))
        place = end
    text = json.dumps({tensor.name: tensor.told() for _, _, tensor in new} | more).encode()
    text += b" " * (-len(text) % ALIGNED)
    target.write(len(text).to_bytes(8, "little") + text)
    for tensor, is_fitted, _ in new:
        start = 8 + size + tensor.begin
        if is_fitted:
            _fit_rows(source, start, tensor, target, wanted)
        else:
            _pour(source, start, tensor.size, target)
    return sum(is_fitted for _, is_fitted, _ in new), place


def _pour(source: BinaryIO, start: int, size: int, target: BinaryIO) -> None:
    source.seek(start)
    while size:
        piece = source.read(min(PIECE, size))
        if not piece:
            raise ValueError("it ends too early")
        target.write(piece)
        size -= len(piece)


def _fit_rows(source: BinaryIO, start: int, tensor: _Tensor, target: BinaryIO, wanted: NDArray[np.int64]) -> None:
    """Write the wanted rows of a tensor, and the mean of them where none is wanted."""
    if tensor.dtype not in FLOATS:
        raise UsageError(
            f"`{tensor.name}` is stored as {tensor.dtype}, of which no mean can be taken",
            hint="use a small model that is not quantised",
        )
    width = math.prod(tensor.shape[1:])
    kind = np.dtype(FLOATS[tensor.dtype])
    stored = np.memmap(source, kind, "r", start, (tensor.shape[0], width))
    each = max(1, PIECE // max(1, width * kind.itemsize))
    known = np.unique(wanted[wanted != NO_ROW])
    total = np.zeros(width)
    for some in _pieces(known, each):
        total += _numbers(stored[some], tensor.dtype).sum(0, dtype=np.float64)
    mean = _stored(total / len(known), tensor.dtype)
    for some in _pieces(wanted, each):
        target.write(np.where((some == NO_ROW)[:, None], mean, stored[np.maximum(some, 0)]).tobytes())


def _pieces(rows: NDArray[np.int64], each: int) -> Iterator[NDArray[np.int64]]:
    return (rows[start : start + each] for start in range(0, len(rows), each))


def _numbers(stored: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Stored numbers as such: numpy has no type for the upper half of a float of 32 bits."""
    return (stored.astype("<u4") << 16).view("<f4") if dtype == BFLOAT16 else stored


def _stored(numbers: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    if dtype != BFLOAT16:
        return numbers.astype(FLOATS[dtype])
    whole = numbers.astype("<f4").view("<u4")
    rounded: NDArray[Any] = (whole + 0x7FFF + ((whole >> 16) & 1)) >> 16
    return rounded.astype("<u2")


def _note(small: Path, base: Path, rows: Match) -> dict[str, Any]:
    """What a copy is made from: it is made again when that has changed."""
    sources = [*small.glob("*.safetensors"), small / "config.json", base / "config.json", base / "tokenizer.json"]
    files = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(sources)}
    return {"files": files, "moved": list(rows.moved), "unknown": list(rows.unknown), "rows": len(rows.rows)}


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"cannot read `{path}`: {error}") from error
    if not isinstance(told, Mapping):
        raise UsageError(f"`{path}` is not what it should be: no table")
    return dict(told)


def main() -> int:
    """Write the copy for a pair of models; returns the exit code."""
    if len(sys.argv) != 1 + 2:
        sys.stderr.write("error: two models are needed\nhint: `drafter BASE SMALL`\n")
        return USAGE
    try:
        done = planned(*map(find, sys.argv[1:])).write()
    except SpecReasonError as error:
        sys.stderr.write(f"error: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return USAGE
    sys.stdout.write(f"{visible(done)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
