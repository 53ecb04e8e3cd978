"""A model's own way of writing turns, learned from its server.

The server renders its chat template for us (``/tokenize`` with messages), so that what is sent later as text is
what the model was trained on, without a tokenizer on the client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from specreason_sgl.errors import UsageError
from specreason_sgl.text.prompts import REFERENCE, VERDICT, Prompts, neutralise
from specreason_sgl.text.thinking import THINK, Thinking, recognised

Message = dict[str, str]
ControlTokens = Callable[[str], Sequence[str]]
"""The control tokens that a rendered text is made with."""
Render = Callable[[Sequence[Message]], str]
"""Messages, the last one the user's, to the text up to where the assistant begins to write."""

_QUESTION, _REPLY, _VERDICT, _THOUGHT = "QUESTIONMARK", "REPLYMARK", "VERDICTMARK", "THOUGHTMARK"


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
    thinking: Thinking = THINK

    @classmethod
    def learn(
        cls,
        render: Render,
        in_front: str = "",
        control_tokens: ControlTokens = lambda _: (),
        prompts: Prompts = REFERENCE,
        *,
        history: Render | None = None,
        thinking: Thinking | None = None,
    ) -> ChatFormat:
        """Read the texts off a template, whichever side of it opens the thinking.

        Args:
            render: the template, up to where the assistant begins to write.
            in_front: what the server puts in front of every text by itself, and so must not be sent again.
            control_tokens: finds the control tokens in what the template makes.
            prompts: what the model is asked.
            history: the template of a conversation that ends with the assistant's turn, with its thinking as
                ``reasoning_content``; it shows the newlines around the marks.
            thinking: how the model thinks, if that is known; recognised from the template if not.

        Raises:
            UsageError: the template does not show the turns it is given, or how the model thinks is not supported.
        """
        user = {"role": "user", "content": _QUESTION}
        reply = {"role": "assistant", "content": _REPLY}
        asked = render([user])
        judged = render([user, reply, {"role": "user", "content": _VERDICT}])
        if asked.count(_QUESTION) != 1 or judged.count(_REPLY) != 1 or judged.count(_VERDICT) != 1:
            msg = "the model's chat template does not render a user's and an assistant's turn"
            raise UsageError(msg, hint="start the server with a `--chat-template` of the model's family")
        told = history([user, {**reply, "reasoning_content": _THOUGHT}]) if history else ""
        thinking = thinking or recognised(asked, told)
        head, _ = thinking.opened(asked)
        if told.startswith(head) and told.count(_THOUGHT) == 1 and _REPLY in told.partition(_THOUGHT)[2]:
            between, _, behind = told[len(head) :].partition(_THOUGHT)
            thinking = thinking.habits(between, behind.partition(_REPLY)[0])
        elif thinking.opening != thinking.mark == thinking.opened(asked)[1]:  # no newline there, so none at the end
            thinking = replace(thinking, closing=thinking.closing.strip())
        head, opening = thinking.opened(asked)
        before, after = head.split(_QUESTION)
        turn, _ = thinking.opened(judged.split(_REPLY)[1].replace(_VERDICT, prompts.judge))
        return cls(
            before.removeprefix(in_front),
            after + opening,
            turn + thinking.begun(VERDICT),
            tuple(dict.fromkeys((*control_tokens(judged), *thinking.tokens))),
            prompts,
            thinking,
        )

    @property
    def close_thinking(self) -> str:
        """Ends the thinking, whether the model closed it or the budget did; the answer phase begins behind it."""
        return self.thinking.closing

    def opening(self, question: str, *, choice: bool = False) -> str:
        """The conversation up to the first step; the question stays inside the user's turn whatever it holds.

        Args:
            question: as it came.
            choice: whether it is one with options.
        """
        asked = self.prompts.user_content(neutralise(question, self.control), choice=choice)
        return self.before + asked + self.after
