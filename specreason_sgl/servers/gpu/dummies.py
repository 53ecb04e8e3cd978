"""Models of real sizes with made-up weights, to measure what a pair costs without having its weights.

SGLang makes up weights (``--load-format dummy``) for any folder with a configuration. What such a model writes has no
meaning, so the embedded pair's tokenizer is good enough, and nothing has to be downloaded.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from specreason_sgl.embedded import BASE
from specreason_sgl.errors import UsageError
from specreason_sgl.servers.gpu.shapes import configuration
from specreason_sgl.servers.pairs import state_folder

ARGUMENTS = ("--load-format", "dummy")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""The architectures of stock models, by model type; other configurations name their own."""


def dummy(model: str) -> Path:
    """Write a folder that SGLang can serve in place of a model.

    Args:
        model: a folder with ``config.json``, a stock model's name, or one that is in the hub's cache here.

    Returns:
        The folder, in the state folder, without the ``/`` of the model's name.

    Raises:
        UsageError: its configuration is nowhere on this machine, or its vocabulary is too small for the tokenizer.
    """
    known = {name: value for name, value in configuration(model).items() if name != "tokenizer"}
    own = json.loads((BASE / "config.json").read_text(encoding="utf-8"))
    if known.get("vocab_size", own["vocab_size"]) < own["vocab_size"]:
        raise UsageError(f"`{model}` has fewer tokens than the embedded pair", hint="measure a larger model")
    ends = {name: own[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    named = {"architectures": [ARCHITECTURES[known["model_type"]]]} if known.get("model_type") in ARCHITECTURES else {}
    folder = state_folder() / "dummies" / model.strip("/").replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "config.json").write_text(json.dumps({**named, **known, **ends}, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER:
        shutil.copyfile(BASE / name, folder / name)
    return folder
