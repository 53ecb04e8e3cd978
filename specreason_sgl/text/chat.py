"""How a model writes turns, learned from its server.

The server renders its chat template (``/tokenize`` with messages). So the text that is sent later has the form that the
model was trained on, and the client needs no tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from specreason_sgl.errors import CallFailed, UsageError
from specreason_sgl.text.prompts import REFERENCE, VERDICT, Prompts, neutralise
from specreason_sgl.text.thinking import THINK, Thinking, recognised

Message = dict[str, str]
ControlTokens = Callable[[str], Sequence[str]]
"""Finds the control tokens in a rendered text."""
Render = Callable[[Sequence[Message]], str]
"""Renders messages, the last of them the user's, up to the place where the assistant begins to write."""

_TEXTS = frozenset({"content", "reasoning_content"})
_QUESTION, _REPLY, _VERDICT, _THOUGHT = "QUESTIONMARK", "REPLYMARK", "VERDICTMARK", "THOUGHTMARK"


@dataclass(frozen=True)
class ChatFormat:
    """The fixed texts around a question and around the judge's turn."""

    before: str
    after: str
    """The text after the question, up to the opening of the thinking and with it."""
    judge_turn: str
    """The text that ends the assistant's turn, asks for the score and begins the reply."""
    control: tuple[str, ...] = ()
    """The control tokens that turns are made of; they are neutralised in all other text."""
    prompts: Prompts = REFERENCE
    thinking: Thinking = THINK
    render: Render | None = field(default=None, compare=False, repr=False)
    """Renders the template itself, for conversations of more than one question."""
    in_front: str = ""
    """The text that the server puts in front of every prompt by itself."""

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
        """Find the texts from what a template renders, whether the template or the model opens the thinking.

        Args:
            render: renders messages up to the place where the assistant begins to write.
            in_front: the text that the server puts in front of every prompt, and that is not sent again.
            control_tokens: finds the control tokens in a rendered text.
            prompts: the prompts for the model.
            history: renders a conversation that ends with the assistant's turn, with its thinking as
                ``reasoning_content``; this shows the newlines around the thinking marks.
            thinking: the model's thinking format; recognised from the template if not given.

        Raises:
            UsageError: the template does not show all turns, or the model's thinking format is not supported.
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
            render,
            in_front,
        )

    def asking(self, prompts: Prompts) -> ChatFormat:
        """The same format with other prompts."""
        judge = neutralise(prompts.judge, self.control)
        return replace(self, judge_turn=self.judge_turn.replace(self.prompts.judge, judge), prompts=prompts)

    def asking_about(self, question: str, begun: str) -> str:
        """The text that ends the assistant's turn, asks another question than the judge's and begins the reply.

        Args:
            question: the user's turn; control tokens in it become plain text.
            begun: the beginning of the reply; it stands where the judge's reply begins, inside the thinking.
        """
        head = self.judge_turn.removesuffix(VERDICT)
        judge = neutralise(self.prompts.judge, self.control)
        return head.replace(judge, neutralise(question, self.control)) + begun

    @property
    def close_thinking(self) -> str:
        """The text that ends the thinking, whether the model or the budget ended it; the answer phase comes next."""
        return self.thinking.closing

    def opening(self, question: str, *, choice: bool = False, earlier: Sequence[Message] = ()) -> str:
        """The conversation up to the first step; control tokens in a turn's text cannot end the turn.

        Args:
            question: the question's text.
            choice: whether the question has options.
            earlier: the messages before it, of the system, the user and the assistant; what the assistant thought for
                one of its own is that message's ``reasoning_content``, which the template shows or leaves out.

        Raises:
            UsageError: a message has another form, or the template cannot render such a conversation.
        """
        asked = self.prompts.user_content(neutralise(question, self.control), choice=choice)
        if not earlier:
            return self.before + asked + self.after
        if self.render is None:
            raise UsageError("this model takes a single question only")
        turns = [self._turn(message) for message in earlier]
        try:
            rendered = self.render([*turns, {"role": "user", "content": asked}])
        except CallFailed as error:
            raise UsageError(f"the model's chat template does not take this conversation: {error}") from error
        head, opening = self.thinking.opened(rendered)
        return head.removeprefix(self.in_front) + opening

    def _turn(self, message: Message) -> Message:
        """A message of a conversation whose texts cannot leave their turn."""
        texts = {name: neutralise(text, self.control) for name, text in message.items() if name != "role"}
        # Templates write the role between control tokens of the turn.
        if not message.get("role", "").isidentifier() or not {"content"} <= texts.keys() <= _TEXTS:
            raise UsageError(
                "a message before the question has another form than messages have",
                hint="it has a `role` such as `user`, `content`, and may have `reasoning_content`",
            )
        return {"role": message["role"], **texts}
