"""What the doctor makes of a machine."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from specreason_sgl.cli import app
from specreason_sgl.servers.gpu import detect, doctor
from specreason_sgl.servers.gpu.doctor import Facts, Finding, examine, gather
from specreason_sgl.servers.gpu.pairfile import read
from specreason_sgl.servers.gpu.plan import GIB

ROW = {
    "index": "0",
    "uuid": "GPU-aa",
    "name": "NVIDIA H100",
    "memory.total": "81559",
    "memory.free": "81000",
    "compute_cap": "9.0",
    "driver_version": "580.65",
}
CPU = Facts(
    python=(3, 11),
    system="Linux",
    packages={"sglang": "0.5.23", "torch": "2.14.1", "flashinfer-python": "0.6", "sglang-router": "0.3.2"},
    wanted_sglang="0.5.23",
    gpus=[],
    cards=[],
    memory=16 * GIB,
    disk={"/cache": 100 * GIB, "/tmp": 10 * GIB},  # noqa: S108 - only a name
    taken_ports=[],
)
QWQ = read("qwq", {})
GPU = replace(CPU, gpus=[ROW], cards=detect.describe("1x80"), spec=QWQ)


def bad(facts: Facts) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(facts) if finding.grade == "bad"}


def by_name(facts: Facts) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(facts)}


def test_without_a_gpu_the_embedded_pair_runs_and_it_is_said_what_a_gpu_would_need() -> None:
    assert bad(CPU) == {}
    assert by_name(CPU)["gpu"].grade == "note"
    assert "the embedded pair runs here" in str(by_name(CPU)["gpu"].advice)


def test_a_machine_with_a_gpu_and_the_weights_is_fine() -> None:
    assert bad(GPU) == {}
    assert by_name(GPU)["plan"].found == "room for 2 of 10240 tokens at a time"


@pytest.mark.parametrize(
    ("facts", "what", "advice"),
    [
        (replace(CPU, python=(3, 10)), "python", "3.11 or newer"),
        (replace(CPU, system="Darwin"), "python", "run on Linux"),
        (replace(CPU, python=(3, 13), packages={}), "python", "use Python 3.11 or 3.12"),
        (replace(CPU, packages={}), "torch", "install the project again"),
        (replace(CPU, wanted_sglang="0.6.0"), "sglang", "pip install sglang==0.6.0"),
        (replace(CPU, memory=GIB), "memory", "stop something else"),
        (replace(CPU, disk={"/cache": 0}), "disk", "1 GiB are needed there"),
        (replace(CPU, spec=QWQ), "gpu", "NVIDIA GPU of 40 GB"),
        (replace(GPU, gpus=[ROW | {"driver_version": "535.1"}]), "driver", "580 or newer"),
        (replace(GPU, cards=[]), "gpu", "CUDA_VISIBLE_DEVICES"),
        (replace(GPU, cards=detect.describe("1x48")), "plan", "base.quantization=fp8"),
        (replace(GPU, missing={"Qwen/QwQ-32B": 200 * GIB}), "disk", "201 GiB are needed there"),
    ],
)
def test_what_is_bad_comes_with_what_to_do(facts: Facts, what: str, advice: str) -> None:
    assert what in bad(facts)
    assert advice in str(bad(facts)[what].advice)


@pytest.mark.parametrize(
    ("facts", "what", "advice"),
    [
        (replace(CPU, taken_ports=[30000]), "ports", "--port"),
        (replace(GPU, missing={"Qwen/QwQ-32B": 60 * GIB}), "weights", "hf download Qwen/QwQ-32B"),
        (replace(GPU, gpus=[ROW | {"compute_cap": "7.5"}]), "capability", "older than Ampere"),
        (replace(GPU, cards=[replace(GPU.cards[0], memory=100 * GIB)]), "gpu 0", "somebody else uses it"),
    ],
)
def test_what_is_worth_knowing_is_no_failure(facts: Facts, what: str, advice: str) -> None:
    notes = {finding.what: finding for finding in examine(facts) if finding.grade == "note"}

    assert bad(facts) == {}
    assert advice in str(notes[what].advice)


def test_this_machine_can_be_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "not" / "there"))
    facts = gather(QWQ)

    assert facts.packages["sglang"] == facts.wanted_sglang
    assert facts.memory > 0
    assert set(facts.missing) == {QWQ.base.model, QWQ.small.model}
    assert all(free > 0 for free in facts.disk.values())


@pytest.mark.parametrize(("facts", "code"), [(CPU, 0), (replace(CPU, memory=0), 1)])
def test_the_exit_code_says_whether_all_is_fine(
    facts: Facts, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "gather", lambda _: facts)
    monkeypatch.setattr(sys, "argv", ["specreason", "doctor"])

    assert app.main() == code
    assert ("can serve the embedded pair" in capsys.readouterr().out) == (code == 0)
    monkeypatch.setattr(sys, "argv", ["specreason", "doctor", "--json"])
    assert app.main() == code
    assert json.loads(capsys.readouterr().out)["fit"] == (code == 0)
