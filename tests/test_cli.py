"""What the command line says and how it ends, without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from batches import carry_out
from faults import story_pair

from specreason_sgl.cli.run import SAMPLE_SEED
from specreason_sgl.embedded.stories import story
from specreason_sgl.embedded.tales import tale
from specreason_sgl.runs.provenance import command_line
from specreason_sgl.runs.store import read_run

KEY = "nobody-is-to-see-this"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        code = carry_out(monkeypatch, *arguments, stdin=stdin)
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["run", "   "], 2, "the question is empty"),
        (["run", "-"], 2, "the question is empty"),
        (["run", "q", "--file", "f"], 2, "exclude each other"),
        (["run", "--file", "nowhere.txt"], 2, "cannot read `nowhere.txt`"),
        (["run", "q", "--program", "nope"], 2, "there is no program `nope`"),
        (["run", "q", "--pair", "nope"], 2, "there is no pair `nope`"),
        (["run", "q", "--thinking", "xml"], 2, "there is no thinking format `xml`"),
        (["run", "q", "--transport", "pigeon"], 2, "there is no transport `pigeon`"),
        (["serve", "--transport", "pigeon"], 2, "there is no transport `pigeon`"),
        (["run", "q", "--thinking", "think,xml"], 2, "there is no thinking format `xml`"),
        (["run", "q", "--pair", "embedded", "--base", "http://x"], 2, "exclude each other"),
        (["run", "--base", "http://127.0.0.1:9"], 2, "there is no question"),
        (["run", "q", "--threshold", "-1"], 2, "`threshold`"),
        (["run", "q", "--threshold", "nan"], 2, "`threshold`"),
        (["run", "q", "--score", "best"], 2, "`score`"),
        (["run", "q", "--budget", "-1"], 2, "`--budget`"),
        (["run", "q", "--display", "neon"], 2, "neon"),
        (["run", "q", "--base", "http://127.0.0.1:9", "--small", "http://127.0.0.1:9"], 3, "does not answer"),
        (["run", "q", "--base", "not a url", "--small", "http://127.0.0.1:9"], 2, "not the address"),
    ],
)
def test_bad_input_is_one_clear_line(call: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     arguments: list[str], code: int, complaint: str) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    ended, out, err = call(*arguments)  # type: ignore[operator]

    assert code == ended
    assert complaint in err
    assert out == ""
    assert "Traceback" not in err
    assert not [line for line in err.splitlines() if not line.startswith(("error: ", "hint: ", "note: "))]


def test_an_unknown_option_is_a_usage_error(call: object) -> None:
    code, _, err = call("run", "--nope")  # type: ignore[operator]

    assert code == 2
    assert "--nope" in err


def test_an_unwritable_run_folder_is_told_before_anything_starts(call: object, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = call("run", "q", "--out", str(tmp_path / "file" / "run"))  # type: ignore[operator]

    assert code == 2
    assert "cannot write the run folder" in err


@pytest.mark.parametrize(("command", "form"), [("run", ("--api-key", KEY)), ("eval", (f"--api-key={KEY}",))])
def test_a_key_from_the_command_line_is_neither_stored_nor_told(
    call: object, tmp_path: Path, command: str, form: tuple[str, ...]
) -> None:
    (tmp_path / "job.toml").write_text(
        'dataset = { name = "stories", limit = 1 }\nflush_cache = false\nmodes = [{ kind = "specreason" }]\n'
    )
    told = [story(seed) for seed in range(60)]
    what = told[0].question if command == "run" else str(tmp_path / "job.toml")
    with story_pair(told) as (_, proxies, _):
        over = ("--base", proxies[0].url, "--small", proxies[1].url, "--out", str(tmp_path / "run"))
        code, *said = call(command, what, *over, *form, "--display", "plain")  # type: ignore[operator]
    stored = [path.read_text() for path in (tmp_path / "run").iterdir()]

    assert code == 0, said
    assert len(stored) == 3
    assert "--api-key" in "".join(stored)
    assert KEY not in "".join([*stored, *said])


@pytest.mark.parametrize("option", ["--api-key", "--serve-key", "--servers-key", "--key"])
def test_a_command_that_is_shown_has_no_key(option: str) -> None:
    for form in ((option, KEY), (f"{option}={KEY}",)):
        shown = command_line(["up", *form, "--replicas", "2"])

        assert KEY not in " ".join(shown)
        assert (shown[0], shown[-2:]) == ("up", ["--replicas", "2"])
        assert option in " ".join(shown)


@pytest.mark.parametrize("given", ["file", "utf-16 file", "standard input"])
def test_a_question_is_read_whatever_wrote_it_and_its_answer_compared_as_mathematics(
    call: object, given: str, tmp_path: Path
) -> None:
    asked = story(0)
    content = asked.question.encode("utf-16" if given.startswith("utf-16") else "utf-8-sig") + (
        b"" if given.startswith("utf-16") else b"\r\n"
    )
    (tmp_path / "question.txt").write_bytes(content)
    what = ("-",) if given == "standard input" else ("--file", str(tmp_path / "question.txt"))
    with story_pair([asked]) as (_, proxies, _):
        over = ("--base", proxies[0].url, "--small", proxies[1].url, "--out", str(tmp_path / "run"))
        right = rf"\frac{{{2 * asked.answer}}}{{2}}"
        code, _, said = call("run", *what, *over, "--answer", right, stdin=content)  # type: ignore[operator]
    (record,) = read_run(tmp_path / "run").records

    assert code == 0, said
    assert record.problem.question.strip() == asked.question
    assert record.tally.correct is True


@pytest.mark.parametrize("content", [b"\xff\xff", b"\xef\xbb\xbf \r\n"])
def test_a_question_that_is_no_text_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "question").write_bytes(content)
    for what in (["-"], ["--file", str(tmp_path / "question")]):
        done = subprocess.run(
            [sys.executable, "-m", "specreason_sgl", "run", *what], input=content, capture_output=True, check=False
        )

        assert done.returncode == 2
        assert done.stderr.startswith((b"error: cannot read", b"error: the question is empty")), done.stderr


def test_nothing_is_up_at_first(call: object) -> None:
    assert call("status")[:2] == (1, "down\n")  # type: ignore[operator]
    assert call("down")[:2] == (0, "no pair was up\n")  # type: ignore[operator]
    assert json.loads(call("status", "--json")[1]) == {"status": "down"}  # type: ignore[operator]


def test_the_sample_is_worth_showing() -> None:
    assert len(tale(SAMPLE_SEED).steps) >= 4


def test_help_and_package_import_neither_torch_nor_sglang() -> None:
    script = (
        "import sys; sys.argv = ['specreason', '--help']\n"
        "from specreason_sgl.cli.app import main\n"
        "assert main() == 0\n"
        "heavy = {'torch', 'sglang', 'transformers', 'datasets', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    ["run", "up", "status", "down", "doctor", "replay", "list", "import-trace", "eval", "report", "diff"],
)
def test_every_command_has_help(call: object, command: str) -> None:
    code, out, _ = call(command, "--help")  # type: ignore[operator]

    assert code == 0
    assert "Usage:" in out
