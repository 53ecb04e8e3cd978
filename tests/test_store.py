from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.errors import UsageError
from specreason_sgl.events import Noticed, SolveEnded, StepTaken, TextStreamed, UnknownEvent
from specreason_sgl.runs import locks
from specreason_sgl.runs.index import summarise_run
from specreason_sgl.runs.store import Done, Problem, RunConfig, RunWriter, SolveRecord, read_run, solve_key, writing

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG = RunConfig(created=NOW, program="specreason", pair="embedded")


def record(question: str = "1+1?", text: str = "2", repeat: int = 0) -> SolveRecord:
    return SolveRecord(
        problem=Problem(id="p", question=question, answer="2"),
        mode="specreason",
        repeat=repeat,
        started=NOW,
        events=[
            TextStreamed(step=0, model="small", kind="draft", text="never stored"),
            StepTaken(step=0, author="small", text=text, tokens=1),
            SolveEnded(at=1.5, outcome="answered", correct=True),
        ],
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with writing(tmp_path / "run", CONFIG) as run:
        run.append(record())
        run.append(record(repeat=1))
    read = read_run(tmp_path / "run")

    assert read.config == CONFIG
    assert read.status is not None
    assert read.status.status == "success"
    assert read.remarks == []
    assert [r.repeat for r in read.records] == [0, 1]
    assert read.records[0].events == record().events[1:]


@given(question=st.text(st.characters(codec=None), min_size=1), text=st.text(st.characters(codec="utf-8")))
def test_any_text_makes_one_line_of_valid_json(
    tmp_path_factory: pytest.TempPathFactory, question: str, text: str
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with writing(folder, CONFIG) as run:
        run.append(record(question, text))
    (line,) = (folder / "solves.jsonl").read_bytes().splitlines()

    assert json.loads(line)["events"][0]["text"] == text
    assert read_run(folder).records[0].key == record(question).key


def test_a_run_is_its_owners_alone(tmp_path: Path) -> None:
    with writing(tmp_path / "run", CONFIG) as run:
        run.append(record())

    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "run").iterdir())


def test_how_it_ended_is_written_down(tmp_path: Path) -> None:
    for error, status in ((KeyboardInterrupt, "cancelled"), (ValueError, "error")):
        with pytest.raises(error), writing(tmp_path / status, CONFIG):
            raise error
        assert json.loads((tmp_path / status / "status.json").read_text())["status"] == status


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with writing(tmp_path / "run", CONFIG), pytest.raises(UsageError, match="another process"):
        RunWriter(tmp_path / "run", CONFIG)


def test_the_same_content_has_the_same_key() -> None:
    assert record().key == record(text="other").key
    assert record().key != record(repeat=1).key
    assert record().key != record(question="1+2?").key


def test_an_unknown_event_is_kept_and_told(tmp_path: Path) -> None:
    row = record().model_dump(mode="json")
    row["events"].insert(0, {"type": "dreamt", "at": 0.5, "of": "sheep"})
    (tmp_path / "solves.jsonl").write_text(json.dumps(row) + "\n")
    read = read_run(tmp_path)

    assert isinstance(read.records[0].events[0], UnknownEvent)
    assert read.records[0].model_dump(mode="json") == row
    assert read.remarks[-1] == "events of a newer version are not shown: dreamt"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "solve_ended", "at": 1.5, "outcome": "voted", "correct": True, "votes": [2, 1]},
        {"type": "thinking_ended", "at": 1.0, "reason": ["enough", "voted"], "steps": 1, "tokens": 1},
        {"type": "call_made", "at": 1.0, "model": "verifier", "kind": "vote"},
    ],
)
def test_a_known_event_in_a_later_form_hides_nothing_else_of_its_solve(tmp_path: Path, event: dict[str, Any]) -> None:
    row = record().model_dump(mode="json")
    row["events"].append(event)
    (tmp_path / "solves.jsonl").write_text(json.dumps(row) + "\n")
    read = read_run(tmp_path)

    assert read.records[0].model_dump(mode="json") == row
    assert read.records[0].tally.steps["small"] == 1
    assert read.remarks[-1] == f"events of a newer version are not shown: {event['type']}"


def test_what_a_stored_event_is_called_is_no_terminal_command(tmp_path: Path) -> None:
    row = record().model_dump(mode="json")
    row["events"].append({"type": "\x1b]0;gone\x07", "at": 0.5})
    (tmp_path / "solves.jsonl").write_text(json.dumps(row) + "\n")

    assert read_run(tmp_path).remarks[-1].isprintable()


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "1" * 5000,
        '{"problem": {"id": "p", "question": "q"}, "events": null}',
        record().model_dump_json().replace('"step_taken"', '["step_taken"]'),
    ],
)
def test_no_line_keeps_the_others_from_being_read(tmp_path: Path, line: str) -> None:
    (tmp_path / "solves.jsonl").write_text(f"{line}\n\n{record().model_dump_json()}\n")
    read = read_run(tmp_path)

    assert len(read.records) == 1
    assert read.remarks[-1] == "line 1 of `solves.jsonl` is unknown to this version and left out"


def test_of_a_run_of_a_later_version_all_is_shown_that_is_known(tmp_path: Path) -> None:
    with writing(tmp_path / "run", CONFIG.model_copy(update={"schema_version": 2})) as run:
        run.append(record())
    read = read_run(tmp_path / "run")

    assert len(read.records) == 1
    assert read.remarks == ["the run is of a later version; what this one knows of it is shown"]


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the system answer every wish for a lock with an error."""

    def flock(_file: object, _how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_once_and_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_locks(monkeypatch, number)
    with writing(tmp_path / "run", CONFIG) as run:
        run.append(record())
    with (tmp_path / "run" / "solves.jsonl").open("a") as file:
        file.write("{")
    again, done = RunWriter.resume(tmp_path / "run", CONFIG, (), Done.of)

    assert len(done) == 1
    assert [len(writer.remarks) for writer in (run, again)] == [1, 1]
    assert "file system without locks" in again.remarks[0]
    assert summarise_run(tmp_path / "run").status == "unknown"
    again.close("success")
    assert summarise_run(tmp_path / "run").status == "success"


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EINVAL])
def test_a_lock_that_fails_says_nothing_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_locks(monkeypatch, number)

    with pytest.raises(UsageError, match=os.strerror(number)) as error:
        RunWriter(tmp_path / "run", CONFIG)
    assert "another process" not in str(error.value)


def test_somebody_elses_lock_is_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specreason_sgl.runs.store.LOCK_S", 0.0)
    refuse_locks(monkeypatch, errno.EWOULDBLOCK)

    with pytest.raises(UsageError, match="another process is writing"):
        RunWriter(tmp_path / "run", CONFIG)


def test_who_looks_whether_somebody_writes_keeps_no_writer_out(tmp_path: Path) -> None:
    (tmp_path / "solves.jsonl").touch()
    reader = (tmp_path / "solves.jsonl").open("rb")
    assert locks.take(reader, shared=True)
    threading.Timer(0.2, reader.close).start()

    RunWriter(tmp_path, CONFIG).close("success")


def test_a_run_file_that_is_replaced_under_a_writer_is_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(_file: object, *, wait_s: float) -> bool:
        (tmp_path / "new").touch()
        (tmp_path / "new").replace(tmp_path / "solves.jsonl")
        return wait_s > 0

    monkeypatch.setattr(locks, "take", take)
    with pytest.raises(UsageError, match="another process is writing"):
        RunWriter(tmp_path, CONFIG)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", ["config.json", "status.json"])
def test_a_writer_that_cannot_begin_lets_go_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, resume: bool
) -> None:
    def fails(self: RunWriter, what: str, content: str | bytes) -> None:
        if what == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, what, content)

    def begin() -> RunWriter:
        return RunWriter.resume(run, CONFIG, (), Done.of)[0] if resume else RunWriter(run, CONFIG)

    run, write = tmp_path / "run", RunWriter._write
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "_write", fails)
        before = open_files()
        with pytest.raises(UsageError, match="No space left") as kept:  # and with it the frames that know the writer
            begin()
    assert open_files() == before
    (run / "config.json").unlink(missing_ok=True)
    begin().close("success")
    assert kept.value.exit_code == 2


@pytest.mark.parametrize("resume", [True, False])
def test_a_refused_writer_holds_nothing(tmp_path: Path, *, resume: bool) -> None:
    with writing(tmp_path / "run", CONFIG) as run:
        run.append(record())
    other = CONFIG.model_copy(update={"pair": "other"})
    before = open_files()
    with pytest.raises(UsageError, match="another configuration" if resume else "already holds a run") as kept:
        RunWriter.resume(tmp_path / "run", other, ("pair",), Done.of) if resume else RunWriter(tmp_path / "run", other)

    assert open_files() == before
    assert kept.value.exit_code == 2


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted


@pytest.mark.parametrize("torn", ["{", '{"problem": ', "[]", "null", '{"problem": {}}'])
def test_a_torn_line_is_told_and_the_rest_is_read(tmp_path: Path, torn: str) -> None:
    with writing(tmp_path / "run", CONFIG) as run:
        run.append(record())
    with (tmp_path / "run" / "solves.jsonl").open("a") as file:
        file.write(torn)
    read = read_run(tmp_path / "run")

    assert len(read.records) == 1
    assert read.remarks == ["line 2 of `solves.jsonl` is half-written and left out"]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from specreason_sgl.errors import SpecReasonError\n"
        "from specreason_sgl.runs.store import *\n"
        "from specreason_sgl.events import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "folder = Path(sys.argv[1])\n"
        "config = RunConfig(created=datetime.now(UTC), program='p', pair='q')\n"
        "try:\n"
        "    with writing(folder, config) as run:\n"
        "        for n in range(1000):\n"
        "            run.append(SolveRecord(problem=Problem(id=str(n), question='q' * 500), mode='m',\n"
        "                                   started=config.created, events=[]))\n"
        "except SpecReasonError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip

    assert "cannot write" in done.stdout
    read = read_run(tmp_path / "run")
    assert len(read.records) > 10
    assert read.remarks == []


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        read_run(tmp_path)


def test_notices_survive(tmp_path: Path) -> None:
    with writing(tmp_path / "run", CONFIG) as run:
        run.append(record().model_copy(update={"events": [Noticed(message="look")]}))

    assert read_run(tmp_path / "run").records[0].events == [Noticed(message="look")]


def test_earlier_messages_are_stored_whole_and_are_part_of_what_identifies_a_solve() -> None:
    reply = {"role": "assistant", "content": "4\ud800", "reasoning_content": "2+2"}
    thought = Problem(id="p", question="q", earlier=(reply,))
    stored = Problem.model_validate_json(thought.model_dump_json())

    assert stored.earlier == ({**reply, "content": "4\ufffd"},)
    assert solve_key(stored, "m", 0) == solve_key(thought, "m", 0)
    unthought = {name: text for name, text in reply.items() if name != "reasoning_content"}
    assert solve_key(Problem(id="p", question="q", earlier=(unthought,)), "m", 0) != solve_key(thought, "m", 0)
