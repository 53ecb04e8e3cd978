from __future__ import annotations

import json
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.errors import UsageError
from specreason_sgl.events import Noticed, SolveEnded, StepTaken, TextStreamed, UnknownEvent
from specreason_sgl.store import Problem, RunConfig, RunWriter, SolveRecord, read_run, writing

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

    assert read.records[0].events[0] == UnknownEvent(at=0.5, type="dreamt")
    assert any("dreamt" in remark for remark in read.remarks)


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
        "from specreason_sgl.store import *\n"
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
