"""How model families write their thinking: the marks around it, and how a family is told from its template.

A small table of our own, because SGLang's registry of reasoning parsers takes seconds to import. What a server says of
itself (``--reasoning-parser``) wins over what its template looks like, and what the user says over both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from specreason_sgl.errors import UsageError

DOCS = "docs/models.md says what is supported, and `--thinking FORMAT` names a format"
SWITCHES = {"enable_thinking": True, "thinking": True}
"""Arguments of templates that have their thinking switched on by one."""


@dataclass(frozen=True)
class Thinking:
    """One way to write thinking."""

    name: str
    families: str
    """Who writes like this, in words."""
    mark: str
    """Opens the thinking."""
    close: str
    """Ends the thinking."""
    opening: str
    """What is written where the template opens nothing: the mark, and what belongs around it."""
    closing: str
    """What stands between the thinking and the answer."""
    parsers: tuple[str, ...] = ()
    """SGLang's names for it."""
    sign: str | None = None
    """A pattern that its template shows and no other."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Marks that nobody's text may hold; a mark that is a sentence may be anybody's."""
        return tuple(part for mark in (self.mark, self.close) if (part := mark.strip()) and part[0] in "<[◁")

    def begun(self, text: str) -> str:
        """The opening up to the mark, with a text right behind it."""
        return self.opening[: self.opening.index(self.mark) + len(self.mark)] + text

    def opened(self, rendered: str) -> tuple[str, str]:
        """A rendered turn without what the template says of thinking at its end, and the opening as it stands there.

        A template with a switch may close at once what it opens, or only close; then the opening is ours.
        """
        mark, close, closing = (re.escape(part.strip()) for part in (self.mark, self.close, self.closing))
        end = re.search(rf"(?P<open>{mark}\s*)?(?P<closed>(?:{closing}|{close})\s*)?\Z", rendered)
        if end is None or (not end["open"] and not end["closed"]):
            return rendered, self.opening
        return rendered[: end.start()], self.opening if end["closed"] else end["open"]

    def habits(self, between: str, behind: str) -> Thinking:
        """The same, with what a template really writes before a thinking and behind it.

        Args:
            between: what stands between the beginning of the assistant's turn and a thinking.
            behind: what stands between a thinking and its answer.

        Raises:
            UsageError: those are marks of another kind.
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
"""In the order in which their signs are looked for; the last one has none, so that it is what is left."""

UNSUPPORTED = {
    "Kimi K3": (("kimi_k3",), r"<\|open\|>"),
    "Inkling": (("inkling",), r"<\|content_thinking\|>|<\|message_user\|>"),
    "Muse": (("muse",), r"<\|eom\|>"),
    "K2 Horizon": (("k2_horizon",), r"<ifm\|think"),
    "Beam": (("beam",), None),
    "models with a response template of their own": (("response_template",), None),
}
"""Families that think in parts or kinds of their own, by SGLang's names for them and what their templates show."""


def named(name: str) -> Thinking:
    """A format by its name here.

    Raises:
        UsageError: there is none.
    """
    for each in FORMATS:
        if each.name == name:
            return each
    raise UsageError(f"there is no thinking format `{name}`", hint=f"use {_names(each.name for each in FORMATS)}")


def parsed_by(parser: str) -> Thinking | None:
    """The format that SGLang reads with a reasoning parser; None if this version does not know the parser.

    Raises:
        UsageError: it reads a family that is not supported.
    """
    for family, (parsers, _) in UNSUPPORTED.items():
        if parser in parsers:
            raise _refused(family)
    return next((each for each in FORMATS if parser in each.parsers), None)


def recognised(asked: str, told: str = "") -> Thinking:
    """The format of a family, from what its template has rendered: by what it opens, else by what it shows.

    Args:
        asked: a conversation up to where the assistant begins to write.
        told: one that ends with the assistant's turn.

    Raises:
        UsageError: it is a family that is not supported.
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
