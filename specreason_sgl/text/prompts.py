"""The prompts of the two models: the user's turn, the judge's turn, the end of the thinking.

Pure functions over strings. A conversation is always one user turn and one assistant turn that is kept
open; the judge's turn is added to a copy of it and thrown away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

DELIMITER = "\n\n"
"""Separates the steps of a chain of thought (SpecReason, section 4)."""

VERDICT = "I think the quality score is: "
"""The beginning of the judge's reply, given in the prompt, inside its thinking."""
JUDGE_PREFILL = f"{THINK_OPEN}{VERDICT}"


@dataclass(frozen=True)
class Prompts:
    """The prompts of a pair. A threshold fits only the prompts it was chosen for, so a run stores their version."""

    version: str
    mathematics: str
    """The user's turn, with ``{problem}`` in it."""
    choice: str
    """The user's turn for a question with options, which are part of the problem."""
    judge: str
    """The turn after the reasoning that asks for the utility score of the last step."""

    def with_words(self, instruction: str | None, judge: str | None) -> Prompts:
        """The prompts with the user's own texts, where given, and a version for them.

        Args:
            instruction: the user's turn, with ``{problem}`` in it, for questions of every kind.
            judge: the question to the judge.
        """
        if instruction is None and judge is None:
            return self
        asked = (instruction or self.mathematics, instruction or self.choice, judge or self.judge)
        digest = hashlib.sha256("\0".join(asked).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return Prompts(f"own-{digest}", *asked)

    def user_content(self, question: str, *, choice: bool = False) -> str:
        """The user's turn: the question and how to answer it."""
        return (self.choice if choice else self.mathematics).replace("{problem}", question.strip(), 1)


REFERENCE = Prompts(
    "reference",
    "Solve the following math problem efficiently and clearly. Please reason step by step, separate logical reasoning "
    "steps with two newline characters (\\n\\n), and put your final answer within \\boxed{}.\nProblem: {problem}",
    "What is the correct answer to the following problem? Please reason step by step. Separate logical reasoning "
    "steps with two newline characters (\\n\\n). Put the final answer **strictly** in the format \\boxed{X}, where X "
    "is a single letter (A, B, C, or D).\n\n**Example output:** \\boxed{A}\n\nProblem: {problem}",
    "Evaluate the last reasoning step solely based on factual correctness and logical validity. Ignore style, "
    "phrasing, or overall usefulness—only judge whether the step is objectively correct and logically follows from "
    "prior steps. Assign a score from 0 to 9.",
)
"""The reference implementation's prompts, for which the paper's thresholds were chosen.

Quoted exactly from ruipeterpan/specreason, spec_reason.py, but for the indentation and line breaks of that source.
"""

_STORY = "{problem}\n\nReason step by step and put the final answer in \\boxed{}."
EMBEDDED = Prompts(
    "1",
    _STORY,
    _STORY.replace("\n", "\n\nAnswer with the letter of the right option.\n", 1),
    "Evaluate the last reasoning step solely based on factual correctness and logical validity. "
    "Assign a score from 0 to 9.",
)
"""The prompts that the embedded pair was trained on."""
_EMBEDDED: dict[tuple[str, ...], str] = {
    ("embedded", "pair"): "tales",
    ("specreason_sgl", "embedded"): "embedded",
    ("specreason_sgl", "pair"): "embedded",
}
"""The embedded pairs by their folders: the one that there is, and the one before it, in both places that it had."""


def prompts_for(model_path: str) -> Prompts:
    """The prompts for a model, by the path that its server reports: the embedded pair has its own."""
    return REFERENCE if embedded_name(model_path) is None else EMBEDDED


def embedded_name(model_path: str) -> str | None:
    """The name of an embedded model that does not depend on where the package is installed; None for any other path."""
    path = PurePath(model_path)
    pair = _EMBEDDED.get(path.parts[-3:-1])
    return pair and f"{pair}/{path.name}"


_CONTROL = re.compile(
    r"<\|[^<>|\n]{1,40}\|>"  # ChatML, Llama 3
    r"|<｜[^<>｜\n]{1,40}｜>"  # DeepSeek
    r"|<\|(?:turn|channel|think)>|<(?:turn|channel)\|>"  # Gemma 4
    r"|</?(?:(?:seed:|mm:)?think|tool_call|tool_response|s|bos|eos|pad|unk|start_of_turn|end_of_turn)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|THINK)\]"
)
_JOINER = "\u2060"  # word joiner: invisible, and no tokenizer has a control token that contains it


def neutralise(text: str, control_tokens: Iterable[str] = ()) -> str:
    """Turn chat control tokens in a text into plain text.

    A server parses control tokens anywhere in the text it is sent, so `<|im_end|>` in a question would end
    the user's turn. An invisible word joiner after the first character leaves the text readable and the
    token broken.

    Args:
        text: a question, a draft, or any other text that may hold control tokens by accident or intent.
        control_tokens: the special tokens of the models' tokenizers, on top of the usual families'.
    """

    def break_up(token: re.Match[str]) -> str:
        return token[0][0] + _JOINER + token[0][1:]

    known = _any_of(tuple(control_tokens))
    return _CONTROL.sub(break_up, known.sub(break_up, text) if known else text)


@lru_cache(maxsize=64)
def _any_of(tokens: tuple[str, ...]) -> re.Pattern[str] | None:
    """Matches the longest of these tokens; a tokenizer can have a thousand of them."""
    known = sorted({token for token in tokens if token.strip()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, known))) if known else None


def whole(text: str) -> str:
    """The text with halves of surrogate pairs replaced: neither JSON nor a tokenizer accepts them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
