"""`specreason doctor --try`: what it looks at, and the file that it writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from specreason_sgl.cli import app, trying
from specreason_sgl.measure import bench, trial
from specreason_sgl.measure.trial import Look, alike, scrubbed, stops

if TYPE_CHECKING:
    from specreason_sgl.servers.pairs import RunningPair


def seen(texts: Sequence[str] = ("a", "b"), digit: int = 9, by: float = 0.0, late: int = 0, rounds: int = 0) -> Look:
    score = tuple(-0.5 - by if place == digit else -5.0 for place in range(10))
    return Look(texts=[*texts], scores=[score], stops=8, late=late, rounds=rounds, verified=4 * rounds)


def test_drafted_tokens_change_neither_texts_nor_scores_or_it_is_said() -> None:
    same = {check.what: check for check in alike(seen(), seen(by=0.1, rounds=3))}
    other = {check.what: check for check in alike(seen(), seen(texts=("a", "c"), digit=8))}

    assert [check.grade for check in same.values()] == ["ok"] * 3
    assert same["drafted tokens"].found == "4.00 tokens a round"
    assert [check.grade for check in other.values()] == ["note", "note", "bad"]
    assert other["texts under decoding"].found == "1 of 2 are the same"
    assert other["scores under decoding"].found.startswith("0 of 1 digits are the same, log-probabilities within 4.5")


def test_a_stop_string_that_is_not_the_first_one_is_told() -> None:
    assert (stops(seen(), "base").grade, stops(seen(late=1), "decode").grade) == ("ok", "note")
    assert stops(seen(late=1), "decode").found == "7 of 8 named their first stop string"
    assert stops(Look(texts=[], scores=[], stops=0, late=0, rounds=0, verified=0), "base").grade == "note"


def test_the_file_has_no_secret_and_not_the_name_of_the_home() -> None:
    environment = {
        "HF_TOKEN": "hf_abcdef",
        "MY_API_KEY": "k" * 20,
        "PASSAGE": "short",
        "PATH": "/usr/bin",
        "HOME": "/home/me",
    }
    text = json.dumps({"a": f"x hf_abcdef {'k' * 20}", "b": "/home/me/.cache/hf", "c": "short", "d": "given-key"})

    assert json.loads(scrubbed(text, ["given-key", None], environment)) == {
        "a": "x *** ***", "b": "~/.cache/hf", "c": "short", "d": "***",
    }  # fmt: skip
    assert scrubbed(text, (), {"HOME": "/"}) == text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--problems", "3"), "need `--try`"),
        (("--try", "--json"), "`--try` and `--json` exclude each other"),
        (("--base", "http://x", "--small", "http://y"), "are tried by `--try --base URL --small URL`"),
        (("--try", "--base", "http://x"), "are tried by `--try --base URL --small URL`"),
        (("--try", "--pair", "qwq", "--base", "http://x", "--small", "http://y"), "without `--pair`"),
        (("--try", "--decode", "http://x"), "goes with `--base URL --small URL`"),
        (("--try", "--base", "http://x", "--small", "http://y", "--out", "here.json"), "is there already"),
    ],
)
def test_what_cannot_be_tried_is_told_in_a_line(
    arguments: Sequence[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.json").write_text("kept")
    monkeypatch.setattr(sys, "argv", ["specreason", "doctor", *arguments])

    assert app.main() == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert complaint in first
    assert all(line.startswith("hint: ") for line in rest)
    assert (tmp_path / "here.json").read_text() == "kept"


@pytest.mark.server
def test_a_pair_is_tried_and_what_was_found_is_in_one_file_without_its_key(
    servers: RunningPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, few in (("TEXTS", 1), ("JUDGED", 2), ("PLACES", 6), ("TRACE", 260)):
        monkeypatch.setattr(trial, name, few)
    monkeypatch.setattr(bench, "LONG", 200)
    monkeypatch.chdir(tmp_path)
    key = str(servers.base.api_key)
    where = [part for role, at in servers.addresses.items() for part in (f"--{role}", at.url)]
    options = ("--problems", "1", "--out", "found.json", "--api-key", key)
    monkeypatch.setattr(sys, "argv", ["specreason", "doctor", "--try", *where, *options])

    assert app.main() == 0
    text = (tmp_path / "found.json").read_text()
    found = json.loads(text)
    assert key not in text
    assert "send back found.json" in capsys.readouterr().err
    grades = {check["what"]: check["grade"] for check in found["checks"]}
    assert set(grades) >= {"seams, base", "cache, small", "transports, base", "stops, base"}
    assert set(grades.values()) <= {"ok", "note"}
    assert grades["seams, base"] == grades["cache, base"] == grades["transports, base"] == grades["stops, base"] == "ok"
    assert grades["texts under decoding"] == grades["drafted tokens"] == "ok"
    kinds = [*trying.ALONE, *trying.DECODING]
    assert [mode["mode"] for mode in found["modes"]] == kinds
    assert [solve["mode"] for solve in found["solves"]] == kinds
    assert {"versions", "hardware", "servers", "started_s"} <= found.keys()
