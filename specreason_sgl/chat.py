"""A model's own way of writing turns, learned from its server.

The server renders its chat template for us (``/tokenize`` with messages), so that what is sent later as text is
what the model was trained on, without a tokenizer on the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from specreason_sgl.errors import UsageError
from specreason_sgl.prompts import JUDGE_PREFILL, REFERENCE, THINK_CLOSE, THINK_OPEN, Prompts, neutralise

Message = dict[str, str]
ControlTokens = Callable[[str], Sequence[str]]
"""The control tokens that a rendered text is made with."""
Render = Callable[[Sequence[Message]], str]
"""Messages, the last one the user's, to the text up to where the assistant begins to write."""

_THINKING = re.compile(rf"(?:{THINK_OPEN}\s*)?(?:{THINK_CLOSE}\s*)?\Z")
"""The opening of the thinking at a text's end, or an empty one, which templates with a switch write to have none."""

_QUESTION, _REPLY, _VERDICT = "QUESTIONMARK", "REPLYMARK", "VERDICTMARK"


@dataclass(frozen=True)
class ChatFormat:
    """The fixed texts around a question and around the judge's turn."""

    before: str
    after: str
    """Behind the question, up to and with the opening of the thinking."""
    judge_turn: str
    """Ends the assistant's turn, asks for the score and begins the reply."""
    control: tuple[str, ...] = ()
    """The control tokens that turns are made of, which nobody's text may hold."""
    prompts: Prompts = REFERENCE

    @classmethod
    def learn(
        cls,
        render: Render,
        in_front: str = "",
        control_tokens: ControlTokens = lambda _: (),
        prompts: Prompts = REFERENCE,
    ) -> ChatFormat:
        """Read the texts off a template, whichever side of it opens the thinking.

        Args:
            render: the template.
            in_front: what the server puts in front of every text by itself, and so must not be sent again.
            control_tokens: finds the control tokens in what the template makes.
            prompts: what the model is asked.

        Raises:
            UsageError: the template does not show the turns it is given.
        """
        asked = render([{"role": "user", "content": _QUESTION}])
        judged = render(
            [
                {"role": "user", "content": _QUESTION},
                {"role": "assistant", "content": _REPLY},
                {"role": "user", "content": _VERDICT},
            ]
        )
        if asked.count(_QUESTION) != 1 or judged.count(_REPLY) != 1 or judged.count(_VERDICT) != 1:
            msg = "the model's chat template does not render a user's and an assistant's turn"
            raise UsageError(msg, hint="start the server with a `--chat-template` of the model's family")
        before, opening = asked.split(_QUESTION)
        turn = judged.split(_REPLY)[1].replace(_VERDICT, prompts.judge)
        opening, turn = _THINKING.sub("", opening, count=1), _THINKING.sub("", turn, count=1)
        return cls(
            before.removeprefix(in_front),
            f"{opening}{THINK_OPEN}\n",
            turn + JUDGE_PREFILL,
            tuple(control_tokens(judged)),
            prompts,
        )

    def opening(self, question: str, *, choice: bool = False) -> str:
        """The conversation up to the first step; the question stays inside the user's turn whatever it holds.

        Args:
            question: as it came.
            choice: whether it is one with options.
        """
        asked = self.prompts.user_content(neutralise(question, self.control), choice=choice)
        return self.before + asked + self.after
