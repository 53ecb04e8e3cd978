"""What the two models are asked, as text: the opening of a turn, the judge's turn, the end of thinking.

Pure functions over strings. A conversation is always one user turn and one assistant turn that is kept
open; the judge's turn is added to a copy of it and thrown away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

DELIMITER = "\n\n"
"""Separates the steps of a chain of thought (SpecReason, section 4)."""

CLOSE_THINKING = f"\n{THINK_CLOSE}\n\n"
"""Ends the thinking, whether the model closed it or the budget did; the answer phase begins behind it."""

INSTRUCTION = "Reason step by step and put the final answer in \\boxed{}."

JUDGE_VERSION = "1"
"""Stored with every run; changes whenever the judge's turn does."""

JUDGE_QUESTION = (
    "Evaluate the last reasoning step solely based on factual correctness and logical validity. "
    "Assign a score from 0 to 9."
)
JUDGE_PREFILL = f"{THINK_OPEN}I think the quality score is: "

_CONTROL = re.compile(
    r"<\|[^<>|\n]{1,40}\|>"  # ChatML, Llama 3
    r"|<｜[^<>｜\n]{1,40}｜>"  # DeepSeek
    r"|</?(?:think|tool_call|tool_response|s|bos|eos|pad|unk|start_of_turn|end_of_turn)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT)\]"
)
_JOINER = "\u2060"  # word joiner: invisible, and no tokenizer has a control token that contains it


def neutralise(text: str, control_tokens: Iterable[str] = ()) -> str:
    """Make chat control tokens in somebody's text plain text.

    A server parses control tokens anywhere in the text it is sent, so `<|im_end|>` in a question would end
    the user's turn. An invisible word joiner after the first character leaves the text readable and the
    token broken.

    Args:
        text: a question, a draft, or anything else that nobody has vouched for.
        control_tokens: the special tokens of the models' tokenizers, on top of the usual families'.
    """

    def break_up(token: re.Match[str]) -> str:
        return token[0][0] + _JOINER + token[0][1:]

    known = sorted({token for token in control_tokens if token.strip()}, key=len, reverse=True)
    text = re.sub("|".join(map(re.escape, known)), break_up, text) if known else text
    return _CONTROL.sub(break_up, text)


def whole(text: str) -> str:
    """The text without halves of surrogate pairs: no characters, which neither JSON nor a tokenizer takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def user_content(question: str) -> str:
    """The user's turn: the question and how to answer it."""
    return f"{question.strip()}\n\n{INSTRUCTION}"
