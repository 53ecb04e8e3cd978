"""`specreason serve` with the clients that people have: each solves what `specreason eval` solves, with its answers.

Run by `make test-clients`, in an environment of the clients' own: the package itself is not in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
COMMANDS = Path(sys.executable).parent
SPECREASON = os.environ.get("SPECREASON", "specreason")
KEY = "the-key-of-the-tests"
NOWHERE = "http://127.0.0.1:9"
OFFLINE = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), NOWHERE),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
"""No client asks anybody else than the server: not for datasets, not for price lists, not for updates."""
JOB = """
concurrency = 1
dataset = { name = "tales", limit = 20, seed = 30050 }
settings = { temperature = 0.0 }
modes = [{ kind = "specreason" }]
"""
"""One of these tales is solved wrongly."""


@dataclass(frozen=True)
class Tale:
    """What `specreason eval` made of a problem."""

    id: str
    question: str
    truth: str
    answer: str
    steps: tuple[str, ...]

    @property
    def asked(self) -> dict[str, Any]:
        """The request."""
        return {"model": "specreason", "messages": [{"role": "user", "content": self.question}], "temperature": 0}


@dataclass(frozen=True)
class Served:
    """The server, and what it is asked."""

    url: str
    folder: Path
    """Where `tales.jsonl` is."""
    tales: tuple[Tale, ...]

    @property
    def answers(self) -> dict[str, str]:
        """Of `specreason eval`, by problem."""
        return {tale.id: tale.answer for tale in self.tales}

    @property
    def accuracy(self) -> float:
        """Of `specreason eval`."""
        return sum(tale.answer == tale.truth for tale in self.tales) / len(self.tales)

    def run(self, *words: str | Path, **more: str) -> None:
        """Run a client's command."""
        told = {**os.environ, **OFFLINE, "HOME": str(self.folder), **more}
        command = [COMMANDS / words[0], *words[1:]]
        done = subprocess.run(command, cwd=self.folder, env=told, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session", autouse=True)
def offline() -> None:
    os.environ.update(OFFLINE)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One pair and one server for all, after `specreason eval` has solved the tales on that pair."""
    folder = tmp_path_factory.mktemp("tales")
    env = {**os.environ, "SPECREASON_HOME": str(tmp_path_factory.mktemp("home"))}

    def specreason(*words: str) -> None:
        subprocess.run([SPECREASON, *words], cwd=folder, env=env, check=True)

    specreason("up")
    try:
        (folder / "job.toml").write_text(JOB)
        specreason("eval", "job.toml", "--pair", "embedded", "--out", "run", "--display", "none")
        tales = tuple(read(folder / "run" / "solves.jsonl"))
        rows = [{"id": each.id, "problem": each.question, "expected_answer": each.truth} for each in tales]
        (folder / "tales.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        serve = [SPECREASON, "serve", "--pair", "embedded", "--port", "0", "--api-key", KEY]
        with subprocess.Popen(serve, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                url = next((line.split()[1] for line in server.stdout if line.startswith("serve ")), None)
                assert url, "the server has ended"
                yield Served(url, folder, tales)
            finally:
                server.terminate()
    finally:
        specreason("down")


def read(solves: Path) -> Iterator[Tale]:
    """The stored solves of a run."""
    for line in solves.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        events, problem = told["events"], told["problem"]
        (answer,) = [event["answer"] for event in events if event["type"] == "answer_written"]
        steps = tuple(event["text"] for event in events if event["type"] == "step_taken")
        yield Tale(problem["id"], problem["question"], problem["answer"], answer, steps)


def boxed(text: str) -> str:
    found: list[str] = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return found[-1] if found else ""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def sdk(served: Served) -> Any:
    import openai

    return openai.OpenAI(base_url=served.url, api_key=KEY)


def test_one_of_the_tales_is_solved_wrongly_or_equal_accuracies_would_say_little(served: Served) -> None:
    assert 0 < served.accuracy < 1


def test_the_openai_sdk_gets_the_answers_of_eval_and_their_thinking(served: Served, sdk: Any) -> None:
    answers = {}
    for tale in served.tales:
        got = sdk.chat.completions.create(**tale.asked)
        (choice,) = got.choices
        answers[tale.id] = boxed(choice.message.content)

        assert choice.finish_reason == "stop"
        assert choice.message.reasoning_content == "\n\n".join(tale.steps)
        assert got.usage.completion_tokens_details.reasoning_tokens > 0
        assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    assert answers == served.answers


def test_the_asynchronous_openai_sdk_gets_the_answers_of_eval(served: Served) -> None:
    import openai

    async def ask() -> dict[str, str]:
        async with openai.AsyncOpenAI(base_url=served.url, api_key=KEY) as client:
            return {
                tale.id: boxed((await client.chat.completions.create(**tale.asked)).choices[0].message.content)
                for tale in served.tales
            }

    assert asyncio.run(ask()) == served.answers


def test_the_openai_sdk_streams_the_thinking_and_then_the_answers_of_eval(served: Served, sdk: Any) -> None:
    answers = {}
    for tale in served.tales:
        chunks = list(sdk.chat.completions.create(**tale.asked, stream=True))
        (first, *deltas) = [chunk.choices[0].delta for chunk in chunks]
        thinking, content = (
            [getattr(delta, name, None) for delta in deltas] for name in ("reasoning_content", "content")
        )
        answers[tale.id] = boxed("".join(filter(None, content)))

        assert (first.role, first.content, first.reasoning_content) == ("assistant", "", None)
        assert "".join(filter(None, thinking)) == "\n\n".join(tale.steps)
        assert len(list(filter(None, thinking))) >= len(tale.steps) > 1
        assert last_place(thinking) < first_place(content)
        assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
        assert all(chunk.usage is None for chunk in chunks)
    assert answers == served.answers


def first_place(texts: list[str | None]) -> int:
    return next(place for place, text in enumerate(texts) if text)


def last_place(texts: list[str | None]) -> int:
    return max(place for place, text in enumerate(texts) if text)


def test_a_stream_ends_with_the_usage_if_it_is_asked_for(served: Served, sdk: Any) -> None:
    tale = served.tales[0]
    *chunks, last = sdk.chat.completions.create(**tale.asked, stream=True, stream_options={"include_usage": True})
    whole = sdk.chat.completions.create(**tale.asked)

    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage == whole.usage


def test_a_stop_at_a_blank_line_ends_neither_the_thinking_nor_the_answer_before_it_began(
    served: Served, sdk: Any
) -> None:
    tale = served.tales[0]  # what lm-eval asks for where a task says nothing
    (choice,) = sdk.chat.completions.create(**tale.asked, stop=["\n\n"]).choices

    assert choice.message.reasoning_content == "\n\n".join(tale.steps)
    assert boxed(choice.message.content) == tale.answer


def test_two_choices_come_whole_and_in_pieces(served: Served, sdk: Any) -> None:
    tale = served.tales[0]
    whole = sdk.chat.completions.create(**tale.asked, n=2)
    texts, ends = {0: "", 1: ""}, []
    for chunk in sdk.chat.completions.create(**tale.asked, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or "" if hasattr(choice.delta, "content") else ""
            ends += [(choice.index, choice.finish_reason)] if choice.finish_reason else []

    assert [choice.index for choice in whole.choices] == [0, 1]
    assert sorted(ends) == [(0, "stop"), (1, "stop")]
    assert all(boxed(choice.message.content) for choice in whole.choices)
    assert all(map(boxed, texts.values()))


def test_the_models_are_listed_with_the_method_first(sdk: Any) -> None:
    names = [model.id for model in sdk.models.list()]

    assert names[0] == "specreason"
    assert {"base", "small", "lookahead"} < set(names)
    assert sdk.models.retrieve("base").id == "base"


@pytest.mark.parametrize("model", ["base", "small", "lookahead"])
def test_other_programs_are_other_models(served: Served, sdk: Any, model: str) -> None:
    got = sdk.chat.completions.create(**{**served.tales[1].asked, "model": model})

    assert got.model == model
    assert boxed(got.choices[0].message.content)


def test_parameters_come_in_a_field_of_their_own_and_the_account_goes_back_in_one(served: Served, sdk: Any) -> None:
    tale = served.tales[0]
    got = sdk.chat.completions.create(**tale.asked, extra_body={"specreason": {"threshold": 10}})

    assert got.specreason["accepted"] == 0
    assert got.specreason["models"]["base"]["kept_tokens"] > 0


def test_a_model_that_is_not_there_is_not_found_and_the_others_are_named(served: Served, sdk: Any) -> None:
    import openai

    with pytest.raises(openai.NotFoundError, match=r"nope.*specreason.*base.*small"):
        sdk.chat.completions.create(**{**served.tales[0].asked, "model": "nope"})
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("nope")


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "value"),
    [("logprobs", True), ("logit_bias", {"1": 5}), ("tools", [TOOL]), ("temperature", -1), ("n", 0), ("seed", "x")],
)
def test_what_has_no_meaning_is_a_bad_request_by_its_name(
    served: Served, sdk: Any, name: str, value: Any, stream: bool
) -> None:
    import openai

    with pytest.raises(openai.BadRequestError, match=name):
        sdk.chat.completions.create(**{**served.tales[0].asked, name: value, "stream": stream})


def test_a_wrong_key_is_an_authentication_error(served: Served) -> None:
    import openai

    client = openai.OpenAI(base_url=served.url, api_key="wrong")
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**served.tales[0].asked)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


@pytest.fixture(scope="session")
def litellm() -> Any:
    import litellm

    return litellm


@pytest.mark.parametrize("provider", ["hosted_vllm", "openai"])
def test_litellm_streams_the_thinking_the_answers_of_eval_and_the_usage(
    served: Served, litellm: Any, provider: str
) -> None:
    answers = {}
    told = {"api_base": served.url, "api_key": KEY, "stream": True, "stream_options": {"include_usage": True}}
    tales = served.tales if provider == "hosted_vllm" else served.tales[:2]
    for tale in tales:
        chunks = list(litellm.completion(**{**tale.asked, "model": f"{provider}/specreason"}, **told))
        whole = litellm.stream_chunk_builder(chunks)
        message, usage = whole.choices[0].message, whole.usage
        answers[tale.id] = boxed(message.content)

        assert message.reasoning_content == "\n\n".join(tale.steps)
        assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answers == {tale.id: tale.answer for tale in tales}


def test_litellm_tells_errors_apart(served: Served, litellm: Any) -> None:
    told = {**served.tales[0].asked, "model": "hosted_vllm/specreason", "api_base": served.url, "api_key": KEY}

    with pytest.raises(litellm.NotFoundError, match="nope"):
        litellm.completion(**{**told, "model": "hosted_vllm/nope"})
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**{**told, "api_key": "wrong"})
    with pytest.raises(litellm.BadRequestError, match="logprobs"):
        litellm.completion(**told, logprobs=True)


def test_sgl_eval_reports_the_accuracy_of_eval(served: Served) -> None:
    served.run(
        *("sgl-eval", "run", "gsm8k", "--base-url", served.url, "--api-key", KEY, "--model", "specreason"),
        *("--from-dataset", "tales.jsonl", "--prompt", HERE / "verbatim.yaml", "--temperature", "0", "--top-p", "1"),
        *("--n-repeats", "1", "--num-threads", "1", "--max-tokens", "2048", "--out-dir", "sgl-eval"),
    )
    (folder,) = (served.folder / "sgl-eval").iterdir()
    told = json.loads((folder / "metrics.json").read_text())
    solved = lines(folder / "output-rs0.jsonl")

    assert told["aggregate"]["score"] == pytest.approx(served.accuracy)
    assert (told["aggregate"]["error_rate"], told["aggregate"]["stop_rate"]) == (0, 1)
    assert {each["id"]: each["predicted_answer"] for each in solved} == served.answers
    assert all(each["reasoning_content"] and each["num_reasoning_tokens"] > 0 for each in solved)


def test_inspect_ai_reports_the_accuracy_of_eval_and_shows_the_thinking_as_such(served: Served) -> None:
    shutil.copy(HERE / "inspect_tales.py", served.folder)
    served.run(
        *("inspect", "eval", "inspect_tales.py", "--model", "openai-api/specreason/specreason"),
        *("--temperature", "0", "--max-tokens", "2048"),
        *("--max-connections", "1", "--display", "none", "--log-dir", "inspect", "--log-format", "json"),
        SPECREASON_BASE_URL=served.url,
        SPECREASON_API_KEY=KEY,
    )
    (path,) = (served.folder / "inspect").glob("*.json")
    told = json.loads(path.read_text(encoding="utf-8"))
    steps = {tale.id: tale.steps for tale in served.tales}

    assert told["status"] == "success"
    assert told["results"]["scores"][0]["metrics"]["accuracy"]["value"] == pytest.approx(served.accuracy)
    assert {each["id"]: each["scores"]["pattern"]["answer"] for each in told["samples"]} == served.answers
    for each in told["samples"]:
        thinking, text = each["output"]["choices"][0]["message"]["content"]
        assert (thinking["type"], thinking["reasoning"]) == ("reasoning", "\n\n".join(steps[each["id"]]))
        assert text["type"] == "text"
        assert each["output"]["usage"]["reasoning_tokens"] > 0


def test_lm_eval_reports_the_accuracy_of_eval_and_sees_no_thinking(served: Served) -> None:
    served.run(
        *("lm_eval", "run", "--model", "local-chat-completions", "--apply_chat_template"),
        *("--model_args", f"model=specreason,base_url={served.url}/chat/completions,timeout=3600"),
        *("--include_path", HERE / "lm_eval", "--tasks", "tales", "--log_samples", "--output_path", "lm-eval"),
        OPENAI_API_KEY=KEY,
    )
    (results,) = (served.folder / "lm-eval").rglob("results_*.json")
    (samples,) = (served.folder / "lm-eval").rglob("samples_*.jsonl")
    told = json.loads(results.read_text())
    solved = {each["doc"]["id"]: each for each in lines(samples)}

    assert told["results"]["tales"]["exact_match,boxed"] == pytest.approx(served.accuracy)
    assert {name: each["filtered_resps"][0] for name, each in solved.items()} == served.answers
    for tale in served.tales:
        assert mentions(solved[tale.id]["resps"][0], tale.steps) == []


def mentions(texts: Iterable[str], steps: Iterable[str]) -> list[str]:
    return [step for step in steps for text in texts if step in text]
