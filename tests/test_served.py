"""The endpoint over the embedded pair on its real servers."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import urllib3
from batches import ROOT, holds, wait_for
from serving import KEY, Served, chunks, serving, text_of

from specreason_sgl.cli.app import app as commands
from specreason_sgl.embedded import BASE, SETTINGS, SMALL
from specreason_sgl.embedded.tales import tale
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.events import CallMade, StepTaken
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, RunConfig, read_run
from specreason_sgl.serve.shelf import shelf
from specreason_sgl.servers import pairs, tree
from specreason_sgl.servers.pairs import RunningPair
from specreason_sgl.settings import Settings

pytestmark = pytest.mark.server

TALES = [tale(number) for number in range(20100, 20164)]


@pytest.fixture(scope="module")
def served(pair: Pair[Endpoint]) -> Iterator[Served]:
    with serving(pair, running=32, waiting=64) as found:
        yield found


@pytest.mark.parametrize("name", ["specreason", "lookahead", "base", "small"])
def test_a_served_solve_is_the_solve_of_the_program(served: Served, pair: Pair[Endpoint], name: str) -> None:
    program = load({"base": "base_only", "small": "small_only"}.get(name, name))
    settings = Settings(**{**SETTINGS, "answer_tokens": 1024})
    own = solve(Problem(id="x", question=TALES[0].question), program, pair, settings)
    kept = [event.text for event in own.events if isinstance(event, StepTaken)]
    told = served.ask(TALES[0].question, model=name).json()
    assert told["choices"][0]["message"]["reasoning_content"] == "\n\n".join(kept)
    assert told["specreason"]["answer"] == own.tally.answer
    found = served.streamed(TALES[0].question, model=name)
    assert text_of(found, "reasoning_content") == "\n\n".join(kept)
    assert text_of(found, "content") == told["choices"][0]["message"]["content"]


def test_a_regenerated_step_streams_token_by_token_and_a_draft_only_when_it_is_accepted(served: Served) -> None:
    found = served.streamed(TALES[0].question, specreason={"threshold": 10})  # the base model writes it all
    whole = served.ask(TALES[0].question, specreason={"threshold": 10}).json()
    pieces = [chunk["choices"][0]["delta"].get("reasoning_content") for chunk in found]
    tokens = whole["usage"]["reasoning_tokens"]
    assert tokens / 3 < len([piece for piece in pieces if piece]) <= tokens + 2
    assert text_of(found, "reasoning_content") == whole["choices"][0]["message"]["reasoning_content"]
    drafts = served.streamed(TALES[0].question, specreason={"threshold": 0})
    steps = [piece for chunk in drafts if (piece := chunk["choices"][0]["delta"].get("reasoning_content"))]
    assert len(steps) == sum(drafts[-1]["specreason"]["steps"].values())


def test_a_conversation_goes_through_the_templates_and_earlier_thinking_is_left_out(served: Served) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "You are careful."},
        {"role": "user", "content": TALES[1].question},
        {"role": "assistant", "content": "Done.", "reasoning_content": "long " * 50},
        {"role": "user", "content": TALES[0].question},
    ]
    plain = served.ask(TALES[0].question).json()["usage"]["prompt_tokens"]
    left_out = served.ask(turns).json()
    assert left_out["usage"]["prompt_tokens"] > plain + 40
    found = served.solves.find(left_out["id"])
    assert found is not None
    assert "reasoning_content" not in found.order.problem.earlier[2]
    assert left_out["choices"][0]["finish_reason"] == "stop"


def test_what_does_not_fit_is_refused_before_anything_is_sent(served: Served) -> None:
    for stream in (False, True):
        answer = served.ask("apple " * 5000, stream=stream)
        assert answer.status_code == 400
        assert "longer than" in answer.json()["message"]


def test_an_answer_is_cut_by_its_own_limit_and_by_no_budget(served: Served) -> None:
    cut = served.ask(TALES[0].question, max_completion_tokens=8).json()
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] <= 8
    spent = served.ask(TALES[0].question, thinking_token_budget=20).json()
    assert spent["specreason"]["thinking_ended"] == "budget"
    assert spent["choices"][0]["finish_reason"] == "stop"
    none = served.ask(TALES[0].question, reasoning_effort="none").json()
    assert none["usage"]["reasoning_tokens"] == 0
    assert none["choices"][0]["message"]["reasoning_content"] is None
    assert none["choices"][0]["message"]["content"]


def test_a_stop_ends_the_answer_and_not_the_thinking(served: Served) -> None:
    told = served.ask(TALES[0].question, stop=["answer", "apples"]).json()
    message = told["choices"][0]["message"]
    assert "answer" in message["reasoning_content"]
    assert message["content"] == "The"
    assert told["choices"][0]["finish_reason"] == "stop"


def test_an_answer_takes_the_form_that_is_asked_for(served: Served) -> None:
    schema = {"type": "object", "properties": {"even": {"type": "boolean"}}, "required": ["even"]}
    form = {"type": "json_schema", "json_schema": {"name": "even", "schema": schema}}
    told = served.ask(TALES[0].question, response_format=form, max_completion_tokens=400)
    assert told.status_code == 200, told.text
    content = told.json()["choices"][0]["message"]["content"]
    assert set(json.loads(content)) == {"even"}
    matched = served.ask(TALES[0].question, regex="[0-9]{1,3}").json()["choices"][0]["message"]["content"]
    assert matched.isdecimal()
    for wrong in (
        {"regex": "["},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
    ):
        answer = served.ask(TALES[0].question, **wrong)
        assert answer.status_code == 400, answer.text
    assert served.ask(TALES[0].question).status_code == 200


def test_a_request_with_tools_goes_on_to_the_model_that_it_names(served: Served) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    for model in ("base", "small"):
        told = served.ask(TALES[0].question, model=model, tools=[tool], max_tokens=20)
        assert told.status_code == 200, told.text
        assert told.json()["model"] == model
        assert "specreason" not in told.json()
        asked = {"model": model, "tools": [tool], "max_tokens": 20, "temperature": 0}
        found = chunks(served.ask(TALES[0].question, **asked, stream=True).text)
        whole = served.ask(TALES[0].question, **asked).json()
        assert text_of(found, "content") == whole["choices"][0]["message"]["content"]
    assert served.ask(TALES[0].question, tools=[tool]).status_code == 400


def busy(server: Any) -> int:
    """How many requests a model's server is working on."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    told = urllib3.request("GET", f"{server.url}/v1/loads", headers=headers, timeout=10).json()
    return sum(int(row["num_running_reqs"]) + int(row["num_waiting_reqs"]) for row in told["loads"])


def test_of_64_clients_at_once_those_that_stay_get_right_answers_and_those_that_leave_leave_nothing(
    served: Served, servers: RunningPair
) -> None:
    chance = random.Random(7)
    leaves = {number for number in range(64) if chance.random() < 0.2}
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        body = {"messages": [{"role": "user", "content": TALES[number].question}], "stream": bool(number % 2)}
        url = f"{served.url}/v1/chat/completions"
        if number in leaves:
            gone = httpx.Timeout(30, read=random.Random(number).uniform(0.05, 4))
            try:
                httpx.post(url, headers=served.headers, json=body, timeout=gone)
            except httpx.ReadTimeout:
                answers[number] = "left"
            return
        told = httpx.post(url, headers=served.headers, json=body, timeout=300)
        text = text_of(chunks(told.text), "content") if number % 2 else told.json()["choices"][0]["message"]["content"]
        answers[number] = text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stayed = [number for number in range(64) if number not in leaves]
    right = [number for number in stayed if answers[number].endswith(f"\\boxed{{{TALES[number].answer}}}.")]
    assert len(right) >= 0.9 * len(stayed)
    assert {answers.get(number, "early") for number in leaves} <= {"left", "early"}
    assert holds(lambda: not served.solves.count("running") and not served.solves.count("waiting"), 10)
    assert holds(lambda: not busy(servers.base) and not busy(servers.small), 10)


def test_a_client_that_leaves_is_noticed_within_a_second_on_both_servers(served: Served, servers: RunningPair) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    for stream in ("true", "false"):
        line = socket.create_connection((host, int(port)))
        body = json.dumps(
            {
                "model": "base",
                "messages": [{"role": "user", "content": TALES[0].question}],
                "stream": stream == "true",
                "specreason": {"instruction": "{problem} {problem} {problem}"},
            }
        )
        line.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wait_for(lambda: busy(servers.base) == 1)
        line.close()
        left = time.monotonic()
        wait_for(lambda: busy(servers.base) == 0)
        served.solves.notice(f"gone after {time.monotonic() - left:.2f} s")
        found = served.solves.all()[-1]
        wait_for(lambda found=found: found.record is not None)  # type: ignore[misc]
        assert found.record is not None
        assert found.record.tally.error == "the client left"


def test_a_stored_run_of_a_server_is_a_run_like_any_other(pair: Pair[Endpoint], tmp_path: Path) -> None:
    config = RunConfig.model_validate({"created": "2026-01-01T00:00:00Z", "program": "serve", "pair": "embedded"})
    with shelf(tmp_path / "run", config) as kept, serving(pair, shelf=kept) as found:
        for told in TALES[:2]:
            found.ask(told.question)
        asked = {"question": TALES[2].question, "answer": str(TALES[2].answer), "program": "base"}
        found.http.post("/v1/solves", json=asked)
    for command in (["report"], ["replay", "--mode", "base"], ["list"]):
        name, *more = command
        place = ["--runs", str(tmp_path)] if name == "list" else [str(tmp_path / "run")]
        with pytest.raises(SystemExit) as ended:
            commands([name, *place, *more])
        assert ended.value.code in {0, None}, command


def test_both_models_killed_under_load_cost_a_pause_and_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECREASON_HOME", str(tmp_path))
    kept, _ = pairs.up(pairs.embedded(BASE, SMALL), serving=pairs.Serving("specreason_sgl.serve.kept"))
    try:
        assert kept.serve
        assert kept.serve.api_key
        with httpx.Client(
            base_url=kept.serve.url,
            headers={"Authorization": f"Bearer {kept.serve.api_key}"},
            timeout=300,
            trust_env=False,
        ) as http:
            wait_for(lambda: http.get("/health").status_code == httpx.codes.OK)

            def ask(number: int) -> str:
                body = {"messages": [{"role": "user", "content": TALES[number].question}], "stream": True}
                return text_of(chunks(http.post("/v1/chat/completions", json=body).text), "content")

            before = [ask(number) for number in range(8)]
            with ThreadPoolExecutor(8) as clients:
                asked = [clients.submit(ask, number) for number in range(8)]
                wait_for(lambda: http.get("/v1/solves").json()["running"] == 8)
                for title in ("specreason::base", "specreason::small"):
                    os.kill(part(kept.pid, title), signal.SIGKILL)
                after = [each.result() for each in asked]
        right = [text.endswith(f"{{{TALES[number].answer}}}.") for number, text in enumerate(after)]
        assert right == [text.endswith(f"{{{TALES[number].answer}}}.") for number, text in enumerate(before)]
        assert pairs.running() == kept
    finally:
        pairs.down()


def part(of: int, title: str) -> int:
    """The id of a process's child with this title."""
    return next(pid for pid in tree._children_of(of) if title in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.parametrize(("asked", "drafts"), [((), False), (("--decode", "small"), True)])
def test_a_pair_that_serve_starts_itself_drafts_tokens_where_it_is_told_to(
    asked: Sequence[str], drafts: bool, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "specreason_sgl", "serve", "--port", "0", "--api-key", KEY, *asked]
    command += ["--store", str(tmp_path / "run")]
    environment = {**os.environ, "SPECREASON_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        url = next(line.split()[1] for line in server.stdout if line.startswith("serve"))
        body = {"messages": [{"role": "user", "content": TALES[0].question}], "model": "base"}
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{url}/chat/completions", headers=headers, json=body, timeout=120).json()
        server.terminate()
    run = read_run(tmp_path / "run")
    assert run.config is not None
    assert answer["choices"][0]["message"]["content"].endswith(f"{{{TALES[0].answer}}}.")
    assert set(run.config.servers) == {"base", "small"}
    assert bool(run.config.servers["base"].get("speculative_algorithm")) is drafts
    (record,) = run.records
    tokens = sum(record.tally.generated.values())
    rounds = sum(event.rounds for event in record.events if isinstance(event, CallMade))
    assert (0 < rounds < tokens / 2) if drafts else not rounds


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_told_to_stop_finishes_what_is_in_flight_and_ends_well(
    how: signal.Signals, pair: Pair[Endpoint], servers: RunningPair, tmp_path: Path
) -> None:
    assert servers.base.api_key
    command = [sys.executable, "-m", "specreason_sgl", "serve", "--port", "0", "--api-key", KEY]
    command += ["--base", servers.base.url, "--small", servers.small.url, "--store", str(tmp_path / "run")]
    command += ["--temperature", "0", "--instruction", pair.models["base"].chat.prompts.mathematics]
    environment = {**os.environ, "SPECREASON_API_KEY": servers.base.api_key, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        url = next(line.split()[1] for line in server.stdout if line.startswith("serve"))
        body = {"messages": [{"role": "user", "content": TALES[0].question}], "model": "base", "stream": True}
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.stream("POST", f"{url}/chat/completions", headers=headers, json=body, timeout=120) as answer:
            text = ""
            for piece in answer.iter_text():
                if not text:
                    server.send_signal(how)
                text += piece
        assert text_of(chunks(text), "content").endswith(f"{{{TALES[0].answer}}}.")
        assert server.wait(60) == 0
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()
    run = read_run(tmp_path / "run")
    assert run.status is not None
    assert (run.status.status, len(run.records)) == ("success", 1)
    assert run.config is not None
    assert KEY not in run.config.model_dump_json()
    assert servers.base.api_key not in run.config.model_dump_json()
