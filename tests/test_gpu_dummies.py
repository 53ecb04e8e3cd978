"""Made-up weights of real sizes: what is written for SGLang, and that SGLang serves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.errors import UsageError
from specreason_sgl.measure import cost_model
from specreason_sgl.servers import pairs, processes
from specreason_sgl.servers.gpu import detect, shapes
from specreason_sgl.servers.gpu.dummies import ARGUMENTS, dummy
from specreason_sgl.servers.gpu.launch import prepare
from specreason_sgl.servers.gpu.pairfile import read, stock

MEASURE = Path(__file__).parents[1] / "eval" / "measure.sh"


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SPECREASON_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize("pair", sorted(stock()))
def test_a_dummy_has_the_real_ones_size_and_an_architecture_that_sglang_knows(pair: str) -> None:
    from transformers import AutoConfig

    spec = read(pair, {"dummy": True})
    for model in (spec.base.model, spec.small.model):
        real, made = shapes.find(model), shapes.find(str(folder := dummy(model)))

        assert made.weight_bytes() == real.weight_bytes()
        assert made.cache_bytes() == real.cache_bytes()
        config = AutoConfig.from_pretrained(folder)
        assert config.architectures[0].lower().startswith(config.model_type)
        assert (config.hidden_size, config.num_hidden_layers) == (real.hidden, real.layers)


def test_only_the_models_of_the_commands_are_others(state: Path) -> None:
    real, made = (prepare(read("qwq", more), detect.describe("1x80")) for more in ({}, {"dummy": True}))

    assert list(made.lines()) == list(real.lines())
    for served, other in zip(made.servers(Path()), real.servers(Path()), strict=True):
        assert served.model == str(state / "dummies" / other.model.replace("/", "--"))
        assert [*other.arguments[2:], *ARGUMENTS] == served.arguments[2:]
    assert made.spec.label == "Qwen/QwQ-32B + deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B (made-up weights)"


def test_what_made_up_weights_cannot_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="say nothing about drafting tokens"):
        prepare(read("qwen3", {"dummy": True, "decode": "auto"}), detect.describe("1x80"))
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 10}))
    with pytest.raises(UsageError, match="fewer tokens than the embedded pair"):
        dummy(str(tmp_path))


def tiny(folder: Path, layers: int) -> str:
    """A Qwen3 as its makers would configure it, but small enough for this machine."""
    folder.mkdir()
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 128,
        "vocab_size": 2048, "max_position_embeddings": 4096, "torch_dtype": "bfloat16", "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[pairs.RunningPair]:
    folders = {role: dummy(tiny(tmp_path / role, layers)) for role, layers in (("base", 8), ("small", 1))}

    def lay_out(logs: Path) -> list[processes.ServerSpec]:
        ports = processes.free_ports(2)
        return [
            processes.model_server(role, folder, port=port, core=core, logs=logs, extra=ARGUMENTS)
            for core, ((role, folder), port) in enumerate(zip(folders.items(), ports, strict=True))
        ]

    pair, _ = pairs.up(pairs.Wanted("dummies", lay_out))
    try:
        yield pair
    finally:
        pairs.down()


@pytest.mark.server
def test_costs_are_measured_on_made_up_weights(served: pairs.RunningPair) -> None:
    base = Endpoint(served.base.url, "base", api_key=served.base.api_key)
    small = Endpoint(served.small.url, "small", api_key=served.small.api_key)
    costs = cost_model.calibrate(base, small, times=1)

    assert costs.token_s("base", 256) > costs.token_s("small", 256) > 0
    assert all(cost.seconds > 0 for cost in costs.judge)


@pytest.mark.server
def test_the_script_measures_one_pair_after_the_other_and_leaves_none_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [MEASURE, "embedded", "embedded"], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "BENCH": "no", "ROUNDS": "1", "PYTHON": sys.executable},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("## embedded") == 2
    assert done.stdout.count("Predicted speed-up against the base model alone, 32 at once") == 2
    assert pairs.running() is None
