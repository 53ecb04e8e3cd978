"""How model families write their thinking: the marks around it, and how a family is recognised by its template.

This is a small table of our own, because SGLang's registry of reasoning parsers takes seconds to import. The user's
choice comes first, then the server's ``--reasoning-parser``, then the chat template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from specreason_sgl.errors import UsageError

DOCS = "docs/models.md says what is supported, and `--thinking FORMAT` names a format"
SWITCHES = {"enable_thinking": True, "thinking": True}
"""Template arguments that switch thinking on, in templates that need that."""


@dataclass(frozen=True)
class Thinking:
    """One way to write thinking."""

    name: str
    families: str
    """The model families that write like this, in words."""
    mark: str
    """The mark that opens the thinking."""
    close: str
    """The mark that ends the thinking."""
    opening: str
    """The opening where the template itself opens nothing: the mark, and the white space around it."""
    closing: str
    """The text between the thinking and the answer."""
    parsers: tuple[str, ...] = ()
    """SGLang's names for the format."""
    sign: str | None = None
    """A pattern that only templates of this format show."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """The marks that are neutralised in other text; marks that are plain sentences are not."""
        return tuple(part for mark in (self.mark, self.close) if (part := mark.strip()) and part[0] in "<[◁")

    def begun(self, text: str) -> str:
        """The opening up to the mark, with a text directly after it."""
        return self.opening[: self.opening.index(self.mark) + len(self.mark)] + text

    def opened(self, rendered: str) -> tuple[str, str]:
        """Split a rendered turn into the part before the opening of the thinking, and the opening.

        A template with a switch may close the thinking at once, or only close it; then our own opening is used.
        """
        mark, close, closing = (re.escape(part.strip()) for part in (self.mark, self.close, self.closing))
        end = re.search(rf"(?P<open>{mark}\s*)?(?P<closed>(?:{closing}|{close})\s*)?\Z", rendered)
        if end is None or (not end["open"] and not end["closed"]):
            return rendered, self.opening
        return rendered[: end.start()], self.opening if end["closed"] else end["open"]

    def habits(self, between: str, behind: str) -> Thinking:
        """The same format, with the texts that a template really writes before and after a thinking.

        Args:
            between: the text between the beginning of the assistant's turn and the thinking.
            behind: the text between the thinking and the answer.

        Raises:
            UsageError: the texts have marks of another format.
        """
        if between.strip() and between.strip() != self.mark.strip():
            shown = between.strip()[:40]
            raise UsageError(
                f"the model's template opens its thinking by `{shown}`, which is not known here", hint=DOCS
            )
        opening = between if self.mark in between else self.opening
        closing = behind if behind.strip().startswith(self.close) else self.closing
        return replace(self, opening=opening, closing=closing)


THINK = Thinking(
    "think",
    "Qwen3, QwQ, DeepSeek R1 and V3.1, GLM-4.5 and later, MiniMax-M2, Kimi-K2-Thinking, EXAONE 4, Nemotron, Granite, "
    "Hunyuan, MiMo, Step, Skywork-OR1, and models without thinking of their own",
    "<think>",
    "</think>",
    "<think>\n",
    "\n</think>\n\n",
    (
        "deepseek-r1", "deepseek-v3", "deepseek-v4", "deepseek-v41", "dots", "gigachat35", "glm45",
        "granite_thinking_parser", "hunyuan", "interns1", "iquest_q1", "kimi_k2", "ling3", "mimo", "minimax",
        "minimax-append-think", "nanbeige", "nemotron_3", "poolside_v1", "qwen3", "qwen3-thinking", "step3", "step3p5",
    ),
)  # fmt: skip

FORMATS = (
    Thinking(
        "harmony",
        "gpt-oss",
        "<|channel|>analysis<|message|>",
        "<|end|>",
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        ("gpt-oss",),
        r"<\|start\|>assistant",
    ),
    Thinking(
        "mistral",
        "Magistral from 2509 on, Ministral Reasoning",
        "[THINK]",
        "[/THINK]",
        "[THINK]",
        "[/THINK]",
        ("mistral",),
        r"\[THINK\]",
    ),
    Thinking(
        "seed",
        "Seed-OSS",
        "<seed:think>",
        "</seed:think>",
        "<seed:think>",
        "</seed:think>",
        (),
        r"<seed:bos>",
    ),
    Thinking(
        "gemma4",
        "Gemma 4",
        "<|channel>thought\n",
        "<channel|>",
        "<|channel>thought\n",
        "<channel|>",
        ("gemma4",),
        r"<\|turn>",
    ),
    Thinking(
        "cohere",
        "Command A Reasoning, Command A Plus",
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_THINKING|>",
        "<|END_THINKING|><|START_TEXT|>",
        ("cohere_command4",),
        r"<\|START_THINKING\|>",
    ),
    Thinking(
        "apriel",
        "Apriel 1.5 and 1.6 Thinker",
        "Here are my reasoning steps:\n",
        "[BEGIN FINAL RESPONSE]",
        "Here are my reasoning steps:\n",
        "\n[BEGIN FINAL RESPONSE]\n",
        (),
        r"Here are my reasoning steps:|\[BEGIN FINAL RESPONSE\]",
    ),
    Thinking(
        "minimax-m3",
        "MiniMax-M3",
        "<mm:think>",
        "</mm:think>",
        "<mm:think>\n",
        "\n</mm:think>\n\n",
        ("minimax-m3",),
        r"</?mm:think>",
    ),
    Thinking(
        "kimi",
        "Kimi-VL-Thinking",
        "◁think▷",
        "◁/think▷",
        "◁think▷",
        "◁/think▷",
        ("kimi",),
        r"◁/?think▷",
    ),
    Thinking(
        "apertus",
        "Apertus",
        "<|inner_prefix|>",
        "<|inner_suffix|>",
        "<|inner_prefix|>",
        "<|inner_suffix|>",
        ("apertus2509",),
        r"<\|inner_prefix\|>|<\|assistant_start\|>",
    ),
    THINK,
)
"""The formats, in the order in which their signs are looked for; the last has no sign and fits all other templates."""

UNSUPPORTED = {
    "Kimi K3": (("kimi_k3",), r"<\|open\|>"),
    "Inkling": (("inkling",), r"<\|content_thinking\|>|<\|message_user\|>"),
    "Muse": (("muse",), r"<\|eom\|>"),
    "K2 Horizon": (("k2_horizon",), r"<ifm\|think"),
    "Beam": (("beam",), None),
    "models with a response template of their own": (("response_template",), None),
}
"""Families whose thinking has a structure of its own: SGLang's names, and a pattern that their templates show."""


def thinking_named(name: str) -> Thinking:
    """A thinking format by its name in `FORMATS`.

    Raises:
        UsageError: there is no such format.
    """
    for each in FORMATS:
        if each.name == name:
            return each
    raise UsageError(f"there is no thinking format `{name}`", hint=f"use {_names(each.name for each in FORMATS)}")


def parsed_by(parser: str) -> Thinking | None:
    """The format that SGLang reads with a reasoning parser; None if this version does not know the parser.

    Raises:
        UsageError: the parser is for a family that is not supported.
    """
    for family, (parsers, _) in UNSUPPORTED.items():
        if parser in parsers:
            raise _refused(family)
    return next((each for each in FORMATS if parser in each.parsers), None)


def recognised(asked: str, told: str = "") -> Thinking:
    """Recognise a family's format by what its template renders: by the opening, else by the format's sign.

    Args:
        asked: a rendered conversation up to the place where the assistant begins to write.
        told: a rendered conversation that ends with the assistant's turn.

    Raises:
        UsageError: the family is not supported.
    """
    rendered = asked + told
    for family, (_, sign) in UNSUPPORTED.items():
        if sign and re.search(sign, rendered):
            raise _refused(family)
    opened = (each for each in FORMATS if each.opened(asked)[0] != asked)
    shown = (each for each in FORMATS if each.sign is None or re.search(each.sign, rendered))
    return next(opened, None) or next(shown)


def _refused(family: str) -> UsageError:
    return UsageError(f"the thinking of {family} is not supported", hint=DOCS)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
