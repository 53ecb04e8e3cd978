"""Which flags make the base server draft tokens for itself, and what GPUs there are."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest

from specreason_sgl.errors import UsageError
from specreason_sgl.servers.gpu import detect
from specreason_sgl.servers.gpu.decode import Method, choose
from specreason_sgl.servers.gpu.plan import GIB
from specreason_sgl.servers.gpu.shapes import Shape, find

QWQ, R1_SMALL = find("Qwen/QwQ-32B"), find("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
QWEN, QWEN_SMALL = find("Qwen/Qwen3-32B"), find("Qwen/Qwen3-1.7B")


@pytest.mark.parametrize(
    ("method", "base", "small", "head", "algorithm"),
    [
        ("auto", QWEN, QWEN_SMALL, None, "STANDALONE"),
        ("auto", QWEN, QWEN_SMALL, "some/head", "EAGLE3"),
        ("auto", QWQ, R1_SMALL, None, "NGRAM"),
        ("auto", QWEN, R1_SMALL, None, "NGRAM"),
        ("small", QWEN, QWEN_SMALL, None, "STANDALONE"),
        ("standalone", QWEN, QWEN_SMALL, None, "STANDALONE"),
        ("eagle3", QWQ, R1_SMALL, "some/head", "EAGLE3"),
        ("ngram", QWEN, QWEN_SMALL, None, "NGRAM"),
        ("off", QWEN, QWEN_SMALL, None, None),
    ],
)
def test_the_algorithm_follows_from_the_two_models(
    method: Method, base: Shape, small: Shape, head: str | None, algorithm: str | None
) -> None:
    chosen = choose(method, base, small, head)

    assert (
        dict(zip(chosen.arguments[::2], chosen.arguments[1::2], strict=True)).get("--speculative-algorithm")
        == algorithm
    )
    assert chosen.draft == {"STANDALONE": small.name, "EAGLE3": head}.get(algorithm or "")


@pytest.mark.parametrize(
    ("base", "small", "reason"),
    [
        (QWQ, R1_SMALL, "`Qwen/QwQ-32B` has 152064 tokens and `deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B` 151936"),
        (QWEN, R1_SMALL, "have as many tokens under other ids"),
        (QWEN, replace(QWEN_SMALL, tokenizer=None), "the tokens of `Qwen/Qwen3-1.7B` are not known here"),
    ],
)
def test_a_mismatch_of_vocabularies_is_told_in_a_line(base: Shape, small: Shape, reason: str) -> None:
    assert reason in choose("auto", base, small).why
    with pytest.raises(UsageError, match="cannot draft tokens") as told:
        choose("small", base, small)

    assert reason in str(told.value)
    assert "\n" not in str(told.value)


def test_eagle_wants_a_head() -> None:
    with pytest.raises(UsageError, match="draft head"):
        choose("eagle3", QWQ, R1_SMALL)


@pytest.mark.parametrize("method", get_args(Method))
def test_sglang_knows_every_flag(method: Method) -> None:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser(allow_abbrev=False)
    ServerArgs.add_cli_args(parser)
    chosen = choose(method, QWEN, QWEN_SMALL, "some/head" if method == "eagle3" else None)
    parsed = parser.parse_args(["--model-path", "m", *chosen.arguments])

    assert parsed.speculative_draft_model_path == chosen.draft


# GPUs

TWO = """0, GPU-aa, NVIDIA H100 80GB HBM3, 81559, 81000, 9.0, 570.1
1, GPU-bb, NVIDIA H100 80GB HBM3, 81559, 40000, 9.0, 570.1
"""


def says(text: str) -> detect.Ask:
    def ask(_: Sequence[str]) -> str:
        return text

    return ask


@pytest.mark.parametrize(
    ("visible", "free"),
    [
        (None, [81000, 40000]),
        ("1", [40000]),
        ("1,0", [40000, 81000]),
        ("GPU-aa", [81000]),
        ("", []),
    ],
)
def test_cards_are_those_that_cuda_will_show(visible: str | None, free: list[int]) -> None:
    found = detect.cards({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, says(TWO))

    assert [card.free // 2**20 for card in found] == free
    assert [card.index for card in found] == list(range(len(free)))


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.CalledProcessError(9, "nvidia-smi")])
def test_without_a_driver_there_are_no_cards(error: Exception) -> None:
    def ask(_: Sequence[str]) -> str:
        raise error

    assert detect.cards({}, ask) == []


@pytest.mark.parametrize("said", ["", "No devices were found\n", "garbage"])
def test_what_is_no_card_is_none(said: str) -> None:
    assert detect.cards({}, says(said)) == []


def test_cards_can_be_described() -> None:
    found = detect.describe("2x48, 1x80gb")

    assert [card.name for card in found] == ["48 GB", "48 GB", "80 GB"]
    assert [card.index for card in found] == [0, 1, 2]
    assert found[2].free / GIB == pytest.approx(79.1, abs=0.5)


@pytest.mark.parametrize("text", ["", "80", "x80", "0x80", "2x", "2 x 48", "2x48;1x80"])
def test_other_descriptions_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not describe GPUs"):
        detect.describe(text)
