"""Prompts that travel in pieces: the server has to read exactly what it would read of the whole text."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from batches import execute, make_job, wait_for
from faults import StoryServer, reply, story_pair
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.cli.app import main
from specreason_sgl.embedded.stories import story
from specreason_sgl.engine import conversation
from specreason_sgl.engine.backend import LEAST, Endpoint
from specreason_sgl.engine.conversation import LOST, NO_SESSIONS, NOT_EXACT, Conversation, Prompt
from specreason_sgl.engine.link import Ids, Link
from specreason_sgl.engine.seams import Seams
from specreason_sgl.engine.transport import Transport
from specreason_sgl.errors import CallRefused, UsageError
from specreason_sgl.events import CallMade, Noticed
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, SolveRecord, read_run
from specreason_sgl.settings import Settings
from specreason_sgl.testing import CHAT

STORIES = [story(seed) for seed in range(60)]
SETTINGS = Settings.model_validate({"budget": 1024})
SHORT = CHAT.opening(STORIES[0].question)
WAYS: tuple[Transport, ...] = ("sessions", "ids", "text")


class Server:
    """What a server does with sessions, ids and text; its tokens are runs of newlines, or words with a space in front.

    Another way to cut a text changes its tokens: two newlines are not twice one.
    """

    name = "the server"

    def __init__(self, in_front: str = "") -> None:
        """Begin without sessions."""
        self.in_front = in_front
        self.sessions: dict[str, dict[str, list[str]]] = {}
        self.requests: list[dict[str, Any]] = []
        self.tokenized: list[str] = []
        self.words: list[str] = []
        self._rids = self._opened = 0

    def tokens(self, text: str, *, in_front: bool = False) -> list[str]:
        """The tokens of a text."""
        plain = re.findall(r"\[\w+\]|\n+| ?\w+| ?[^\w\s]+|\s", text)
        return [self.in_front, *plain] if in_front and self.in_front else plain

    def once(self, path: str, body: dict[str, Any]) -> Any:
        """Answer what is no generation."""
        if path == "/open_session":
            self._opened += 1
            name = f"s{self._opened}"
            self.sessions[name] = {}
            return name
        if path == "/tokenize":
            several = isinstance(body["prompt"], list)
            prompts = body["prompt"] if several else [body["prompt"]]
            self.tokenized += prompts
            made = [self._ids(self.tokens(each, in_front=body["add_special_tokens"])) for each in prompts]
            return {"tokens": made if several else made[0]}
        raise AssertionError(path)

    def tell(self, path: str, body: dict[str, Any]) -> None:
        """Close a session."""
        assert path == "/close_session"
        self.sessions.pop(body["session_id"], None)

    def read(self, fields: dict[str, Any], written: str = "") -> tuple[list[str], dict[str, Any]]:
        """The tokens of a prompt as the server puts it together, and the meta information of the response."""
        self.requests.append(fields)
        place = fields.get("session_params")
        before: list[str] = []
        try:
            session = self.sessions[place["id"]] if place else {}
            if place and "rid" in place:
                before = session[place["rid"]][: place["offset"]]
        except KeyError as error:
            raise CallRefused("unknown") from error
        if "input_ids" in fields:
            prompt = [self.words[each] for each in json.loads(b"[" + fields["input_ids"] + b"]")]
        else:
            prompt = [*before, *self.tokens(fields["text"], in_front=not before)]
        self._rids += 1
        rid, output = f"r{self._rids}", [*re.findall(r"..?", written, re.DOTALL), "[end]"]
        if place:
            session[rid] = [*prompt, *output]
        return prompt, {"id": rid, "prompt_tokens": len(prompt), "completion_tokens": len(output), "cached_tokens": 0}

    def _ids(self, tokens: list[str]) -> list[int]:
        self.words += [token for token in dict.fromkeys(tokens) if token not in self.words]
        return [self.words.index(token) for token in tokens]


def asked(talk: Conversation, server: Server, text: str, mark: int = 0, written: str = "") -> tuple[list[str], Prompt]:
    """Send a prompt; returns the tokens that the server read."""
    read: list[Any] = []

    def ask(fields: dict[str, Any]) -> Any:
        read.append(server.read(fields, written))
        return read[-1]

    link = cast("Link", server)
    (tokens, meta), prompt = talk.send(link, talk.prompt(link, text), ask)
    talk.arrived(prompt, meta, mark, written=written)
    return tokens, prompt


PIECE = st.text(alphabet=st.sampled_from("ab1.,\n \u4e2d\U0001f600é"), min_size=0, max_size=8)


@given(
    st.lists(st.tuples(st.integers(0, 5), PIECE, PIECE, PIECE), min_size=1, max_size=12),
    st.sampled_from(WAYS),
    st.sampled_from(["", "[bos]"]),
)
def test_a_server_reads_the_tokens_of_the_whole_text_however_it_travels(
    grown: list[tuple[int, str, str, str]], transport: Transport, in_front: str
) -> None:
    server = Server(in_front)
    talk = Conversation(transport, Seams(in_front))
    texts = ["[user]Why?[assistant]"]
    for back, piece, turn, written in grown:
        text = texts[max(0, len(texts) - 1 - back)] + piece
        texts.append(text + written)
        texts.append(text)
        tokens, _ = asked(talk, server, text + turn, len(text) if turn else 0, written)

        assert tokens == server.tokens(text + turn, in_front=True)


def test_only_the_new_piece_is_sent_and_only_it_is_tokenized() -> None:
    server, steps = Server(), [f"Step {number} of many.\n\n" for number in range(50)]
    talk, text, turn = Conversation("sessions", Seams()), "[user]Why?[assistant]\n", "[user]Score?[assistant]It is"
    for step in steps:
        text += step
        asked(talk, server, text + turn, len(text))
    first, *others = server.requests

    assert first["text"] == text[: text.index(steps[1])] + turn
    assert [request["text"] for request in others] == [step + turn for step in steps[1:]]
    assert sum(map(len, server.tokenized)) < 3 * len(turn) + 200


def test_where_ids_travel_only_the_new_piece_is_tokenized() -> None:
    server, talk, text = Server(), Conversation("ids", Seams()), "[user]Why?[assistant]\n"
    for number in range(50):
        text += f"Step {number} of many.\n\n"
        asked(talk, server, text)

    assert sum(map(len, server.tokenized)) < 2 * len(text)
    assert all("text" not in request for request in server.requests)


def test_where_a_seam_is_not_exact_the_whole_text_is_sent_and_the_trace_says_so() -> None:
    server, talk, opening = Server(), Conversation("sessions", Seams()), "[assistant]<think>\n"
    asked(talk, server, opening)
    _, cut = asked(talk, server, opening + "\nOdd.\n\n")
    _, behind = asked(talk, server, opening + "\nOdd.\n\nSo.\n\n")

    assert (cut.transport, cut.notices) == ("text", (NOT_EXACT,))
    assert (behind.transport, behind.notices) == ("sessions", ())
    assert server.requests[-1]["text"] == "So.\n\n"


def test_a_session_that_is_gone_is_opened_anew_with_the_whole_text() -> None:
    server, talk, text = Server(), Conversation("sessions", Seams()), "[user]Why?[assistant]One.\n\n"
    asked(talk, server, text)
    server.sessions.clear()
    tokens, prompt = asked(talk, server, text + "Two.\n\n")
    _, after = asked(talk, server, text + "Two.\n\nThree.\n\n")

    assert tokens == server.tokens(text + "Two.\n\n")
    assert prompt.notices == (LOST,)
    assert (after.transport, len(server.sessions)) == ("sessions", 1)


def test_a_request_that_is_refused_as_a_whole_too_is_refused() -> None:
    talk, tries = Conversation("sessions", Seams()), list[str]()

    def refuse(fields: dict[str, Any]) -> Any:
        tries.append(fields["text"])
        raise CallRefused("too long")

    link = cast("Link", Server())
    prompt = talk.prompt(link, "a")
    with pytest.raises(CallRefused, match="too long"):
        talk.send(link, prompt, refuse)
    assert tries == ["a", "a"]


def test_a_session_that_holds_enough_makes_way_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specreason_sgl.engine.sessions.CAPACITY", 100)
    server, talk, text = Server(), Conversation("sessions", Seams()), "[user]Why?[assistant]"
    names = set[str]()
    for number in range(30):
        text += f"Step {number}.\n\n"
        tokens, prompt = asked(talk, server, text)
        names.add(prompt.session)

        assert tokens == server.tokens(text)
        assert len(server.sessions) == 1
    assert len(names) > 3


def test_of_many_long_prompts_only_the_last_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "CHARACTERS", 3000)
    server, talk = Server(), Conversation("sessions", Seams())
    for number in range(100):
        asked(talk, server, f"[user]{number}{'a' * 500}")
    kept = talk._sent

    assert len(kept) == conversation.FEW
    for number in range(100):
        asked(talk, server, f"[user]{number}")
    assert len(talk._sent) == conversation.MANY


def test_several_texts_behind_one_prompt_share_its_place() -> None:
    server, talk, text = Server(), Conversation("sessions", Seams()), "[user]Why?[assistant]One.\n\n"
    asked(talk, server, text)
    _, prompt = asked(talk, server, text + "Two.\n\n")

    assert prompt.times(3) == {"text": ["Two.\n\n"] * 3, "session_params": prompt.fields["session_params"]}
    assert Prompt("a", "ids", {"input_ids": Ids(b"1")}).times(2) == {"input_ids": [Ids(b"1"), Ids(b"1")]}


def test_what_was_computed_and_is_not_in_the_cache_is_counted() -> None:
    server, talk, text = Server(), Conversation("sessions", Seams()), "[user]Why?[assistant]One.\n\n"
    before, _ = asked(talk, server, text, written="Two.")
    read, prompt = asked(talk, server, text + "Two.\n\n")
    computed = len(before) + 2  # "Tw", "o.", of which the end is not computed

    def again(cached: int) -> Any:
        return prompt.account({"prompt_tokens": len(read) + 5, "cached_tokens": cached})["recomputed_tokens"]

    assert [again(computed), again(computed - 2), again(computed + 3)] == [0, 2, 0]
    assert prompt.account({"prompt_tokens": 5, "cached_tokens": 4})["recomputed_tokens"] == 0


@given(st.lists(st.integers(0, 200000), max_size=6), st.lists(st.integers(0, 200000), max_size=6), st.integers(0, 6))
def test_ids_are_what_they_stand_for(ids: list[int], more: list[int], last: int) -> None:
    def read(written: Ids) -> Any:
        return json.loads(b"[" + written + b"]")

    assert read(Ids.of(ids).and_then(more)) == ids + more
    if last < len(ids):
        assert read(Ids.of(ids).but(last)) == ids[: len(ids) - last]


def one(pair: Any, seed: int = 0, **more: Any) -> SolveRecord:
    problem = Problem(id="0", question=STORIES[seed].question, answer=str(STORIES[seed].answer))
    return solve(problem, load("specreason"), pair, SETTINGS, **more)


def told(record: SolveRecord) -> list[Any]:
    """What a solve came to, whatever its calls cost and however their prompts travelled."""
    apart = {"at", "wall_s", "engine_s", "transport", "recomputed_tokens"}
    return [event.model_dump(exclude=apart) for event in record.events if not isinstance(event, Noticed)]


@pytest.fixture(scope="module")
def plain() -> list[Any]:
    with story_pair(STORIES, transport="text") as (pair, _, _):
        return [told(one(pair, seed)) for seed in range(6)]


@pytest.mark.parametrize("transport", WAYS)
def test_a_solve_is_the_same_however_its_prompts_travel(transport: Transport, plain: list[Any]) -> None:
    with story_pair(STORIES, transport=transport) as (pair, _, _):
        records = [one(pair, seed) for seed in range(6)]
    calls = [event for record in records for event in record.events if isinstance(event, CallMade)]

    assert [told(record) for record in records] == plain
    assert pair.base.transport == pair.small.transport == transport  # type: ignore[union-attr]
    assert sum(call.transport == transport for call in calls) > len(calls) / 2


@pytest.mark.parametrize("transport", WAYS)
def test_faults_change_nothing_however_prompts_travel(transport: Transport, tmp_path: Path) -> None:
    def results(share: float, folder: str) -> dict[str, Any]:
        with story_pair(STORIES, seed=5, share=share, read_s=0.7, transport=transport) as (pair, proxies, _):
            records = execute(tmp_path / folder, make_job(12), pair)
            assert any(proxy.plan.injected for proxy in proxies) == bool(share)
        return {record.key: (record.tally.answer, record.tally.calls) for record in records}

    assert results(0.15, "shaky") == results(0.0, "calm")


def test_a_session_that_is_lost_with_its_server_is_opened_anew_and_the_solve_goes_on(plain: list[Any]) -> None:
    with story_pair(STORIES, transport="sessions") as (pair, _, servers):

        def restart(event: Any) -> None:
            if isinstance(event, CallMade) and event.step in {1, 3}:
                servers[0].sessions.clear()
                servers[1].sessions.clear()

        record = one(pair, sink=restart)
    notices = [event.message for event in record.events if isinstance(event, Noticed)]

    assert told(record) == plain[0]
    assert LOST in notices


def test_a_server_that_comes_back_without_sessions_is_sent_whole_texts(plain: list[Any]) -> None:
    with story_pair(STORIES, transport="sessions") as (pair, _, servers):

        def restart(event: Any) -> None:
            if isinstance(event, CallMade) and event.step == 1:
                for server in servers:
                    server.opens_sessions = False
                    server.sessions.clear()

        record = one(pair, sink=restart)
    calls = [event for event in record.events if isinstance(event, CallMade)]
    notices = [event.message for event in record.events if isinstance(event, Noticed)]

    assert told(record) == plain[0]
    assert calls[-1].transport == "text"
    assert notices.count(NO_SESSIONS) == len(servers)


def test_no_session_outlives_its_solve() -> None:
    with story_pair(STORIES, transport="sessions") as (pair, _, servers):
        seen = list[int]()
        one(pair, sink=lambda _: seen.append(len(servers[0].sessions)))
        scope = Scope()
        failed = one(pair, sink=lambda event: scope.cancel() if isinstance(event, CallMade) else None, scope=scope)

        assert max(seen) == 1
        assert failed.tally.outcome == "failed"
        assert servers[0].sessions == servers[1].sessions == {}


def test_a_session_that_nobody_closed_is_closed_when_its_conversation_is_collected() -> None:
    with StoryServer("base", STORIES) as server:
        endpoint = Endpoint(server.url, "base", transport="sessions")
        part = endpoint.within(Scope())
        part.commit_lazy_operations(cast("Any", _State(SHORT)))
        assert len(server.sessions) == 1

        del part
        gc.collect()
        wait_for(lambda: not server.sessions)


class _State:
    """As much of a state as a call needs."""

    def __init__(self, text: str) -> None:
        self.text_, self.mark = text, 0
        self.images_: list[Any] = []


def test_short_prompts_travel_as_they_are_unless_something_else_is_asked_for() -> None:
    with StoryServer("base", STORIES) as server:
        endpoint = Endpoint(server.url, "base")
        metas = [endpoint._call(_State(text), {"sampling_params": {"max_new_tokens": 0}}, read)[1] for text in LONG]

    assert endpoint.transport == "sessions"
    assert [meta["transport"] for meta in metas] == ["text", "text", "sessions", "sessions"]


LONG = [SHORT, *(SHORT + "So it goes on.\n\n" * (LEAST + number) for number in range(3))]


def read(answer: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return answer["text"], {**answer["meta_info"], "finish_reason": None}


def test_a_server_that_cannot_take_prompts_as_they_are_to_travel_is_told() -> None:
    class Old(StoryServer):
        def handle(self, handler: Any, body: bytes) -> None:
            if handler.path == "/open_session" or b"input_ids" in body:
                reply(handler, {"error": {"message": "not here"}}, 404 if handler.path == "/open_session" else 400)
            else:
                super().handle(handler, body)

    with Old("base", STORIES) as server:
        assert Endpoint(server.url, "base").transport == "text"
        for transport in WAYS[:2]:
            with pytest.raises(UsageError, match=f"does not take prompts as `{transport}`"):
                Endpoint(server.url, "base", transport=transport)


def test_behind_an_address_of_several_servers_no_session_is_relied_on() -> None:
    class Several(StoryServer):
        """Two servers in turn: neither has the requests of the other."""

        def __init__(self) -> None:
            self.turns: dict[str, bool] = {}
            super().__init__("base", STORIES)

        def _prompt(self, asked: dict[str, Any]) -> list[int] | None:
            turn = self.turns[asked["rid"]] = len(self.turns) % 2 == 0
            before = asked.get("session_params", {}).get("rid")
            return None if before is not None and self.turns[before] != turn else super()._prompt(asked)

    with Several() as server:
        assert Endpoint(server.url, "base").transport == "ids"


def test_a_call_behind_an_image_is_sent_whole() -> None:
    with StoryServer("base", STORIES) as server:
        endpoint = Endpoint(server.url, "base", transport="sessions")
        state = _State(SHORT)
        state.images_ = [("picture", "aGk=")]
        asked = [endpoint._call(state, {"sampling_params": {"max_new_tokens": 0}}, read)[1] for _ in range(2)]

    assert [meta["transport"] for meta in asked] == ["text", "text"]
    assert server.sessions == {}


def test_the_transport_of_a_command_is_that_of_its_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = STORIES[0].question
    with story_pair(STORIES) as (_, proxies, _):
        for transport in WAYS:
            folder = tmp_path / transport
            over = ("--base", proxies[0].url, "--small", proxies[1].url, "--out", str(folder), "--display", "none")
            monkeypatch.setattr("sys.argv", ["specreason", "run", asked, *over, "--transport", transport])
            assert main() == 0
            calls = [event for event in read_run(folder).records[0].events if isinstance(event, CallMade)]

            assert {call.transport for call in calls} <= {transport, "text"}
            assert sum(call.transport == transport for call in calls) > len(calls) / 2
