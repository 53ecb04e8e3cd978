"""What the two models are asked, as text: the opening of a turn, the judge's turn, the end of thinking.

Pure functions over strings. A conversation is always one user turn and one assistant turn that is kept
open; the judge's turn is added to a copy of it and thrown away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

DELIMITER = "\n\n"
"""Separates the steps of a chain of thought (SpecReason, section 4)."""

CLOSE_THINKING = f"\n{THINK_CLOSE}\n\n"
"""Ends the thinking of models that think between these marks; `ChatFormat.close_thinking` that of any."""

VERDICT = "I think the quality score is: "
"""How the judge's reply is begun for it, inside its thinking."""
JUDGE_PREFILL = f"{THINK_OPEN}{VERDICT}"


@dataclass(frozen=True)
class Prompts:
    """What a pair is asked. Thresholds belong to the words, so a run stores their version."""

    version: str
    mathematics: str
    """The user's turn, with ``{problem}`` in it."""
    choice: str
    """The same for a question with options, which are part of the problem."""
    judge: str
    """The turn behind the reasoning that asks for the utility score of its last step."""

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
"""The reference implementation's words, to which the paper's thresholds belong.

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
"""What the embedded pair was trained on."""


def prompts_for(model_path: str) -> Prompts:
    """The words for a model, by the path that its server gives: the embedded pair has its own."""
    return EMBEDDED if PurePath(model_path).parts[-3:-1] == ("specreason_sgl", "pair") else REFERENCE


_CONTROL = re.compile(
    r"<\|[^<>|\n]{1,40}\|>"  # ChatML, Llama 3
    r"|<｜[^<>｜\n]{1,40}｜>"  # DeepSeek
    r"|<\|(?:turn|channel|think)>|<(?:turn|channel)\|>"  # Gemma 4
    r"|</?(?:(?:seed:|mm:)?think|tool_call|tool_response|s|bos|eos|pad|unk|start_of_turn|end_of_turn)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|THINK)\]"
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
