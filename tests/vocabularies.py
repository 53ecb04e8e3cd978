"""Models whose vocabularies differ, for tests of copies that draft."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from specreason_sgl.embedded import SMALL
from specreason_sgl.text.prompts import THINK_CLOSE, THINK_OPEN

CUT = 1200
"""Ordinary tokens of the cut model: no story has others."""


def put_tokenizer(folder: Path, ordinary: dict[str, int], added: dict[str, int], end: str) -> None:
    """Write what is read of a tokenizer."""
    told = {"model": {"vocab": ordinary}, "added_tokens": [{"content": each, "id": n} for each, n in added.items()]}
    (folder / "tokenizer.json").write_text(json.dumps(told))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": end}}))


def put_cut(folder: Path) -> Path:
    """Write the embedded small model without tokens that no story has, and with other ids for the thinking's marks."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    shutil.copytree(SMALL, folder)
    told = json.loads((SMALL / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in told["added_tokens"]}
    marks = (added[THINK_OPEN], added[THINK_CLOSE])
    rows = [*range(CUT), *marks]
    ordinary = {
        token: number for token, number in told["model"]["vocab"].items() if number < CUT and number not in marks
    }
    moved = {THINK_OPEN: CUT, THINK_CLOSE: CUT + 1}
    put_tokenizer(folder, ordinary, added | moved, "<|im_end|>")
    with safe_open(SMALL / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        tensors[name] = tensors[name][rows].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((SMALL / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": len(rows)}))
    return folder
