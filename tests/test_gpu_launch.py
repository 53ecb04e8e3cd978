"""From a pair of models and cards to what two servers are told."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from specreason_sgl.cli import app
from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.servers import pairs, processes
from specreason_sgl.servers.gpu import attention, detect
from specreason_sgl.servers.gpu.fields import family
from specreason_sgl.servers.gpu.launch import Launch, prepare
from specreason_sgl.servers.gpu.pairfile import PairSpec, read, risks, stock
from specreason_sgl.servers.gpu.plan import GIB
from specreason_sgl.servers.gpu.shapes import configuration, find
from specreason_sgl.servers.opening import PairOptions

PAIR = {"base.model": "Qwen/Qwen3-32B", "small.model": "Qwen/Qwen3-1.7B"}


def launch(cards: str, replicas: int = 1, **overrides: Any) -> Launch:
    named = PAIR | {name.replace("__", "."): value for name, value in overrides.items()}
    return prepare(read(None, named), detect.describe(cards), replicas=replicas)


def options(command: str) -> dict[str, str]:
    words = shlex.split(command)[4:]
    return dict(zip(words[::2], words[1::2], strict=True))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["specreason", *arguments])
    return app.main()


# Pairs


@pytest.mark.parametrize("name", sorted(stock()))
def test_stock_pairs_are_planned_without_the_hub(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    assert prepare(read(name, {}), detect.describe("4x80")).plan.concurrency >= 1


@pytest.mark.parametrize("decode", ["off", "auto"])
def test_the_papers_pair_in_8_bits_has_room_for_its_longer_budget_on_one_card(decode: str) -> None:
    for card in ("1xH100", "1x80"):
        plan = prepare(read("qwq-fp8", {"decode": decode}), detect.describe(card)).plan

        assert plan.context == 34816
        assert plan.concurrency >= 1
        assert (plan.base.served.cards, plan.base.first_card, plan.small.first_card) == (1, 0, 0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_pair_file_of_ones_own(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = 'context = 4096\nbase = { model = "b", arguments = ["--x"] }\nsmall.model = "s"\n'
    file.write_text(text, encoding=encoding)
    spec = read(str(file), {"base.dtype": "float16", "concurrency": 3})

    assert (spec.context, spec.concurrency, spec.base.dtype, spec.base.arguments) == (4096, 3, "float16", ("--x",))
    assert spec.label == "b + s"


@pytest.mark.parametrize(
    ("pair", "overrides", "complaint"),
    [
        ("nope", {}, "there is no pair `nope`"),
        (None, {}, "there is no base model"),
        (None, {"base.model": "b"}, "there is no small model"),
        ("qwq", {"context": 10}, "`context`: Input should be greater than or equal to 1024"),
        ("qwq", {"base.nope": 1}, "`base.nope`: Extra inputs are not permitted"),
        ("qwq", {"context.nope": 1, "context": 2}, "the pair: `context`"),
    ],
)
def test_a_pair_that_cannot_be_is_told_in_a_line(pair: str | None, overrides: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read(pair, overrides)


# Commands


def test_the_commands_of_the_papers_pair_on_one_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPECREASON_API_KEY", "a secret")

    assert call(monkeypatch, "up", "--pair", "qwq", "--gpus", "1x80", "--dry-run") == 0
    out = capsys.readouterr().out
    base, small = (line for line in out.splitlines() if not line.startswith("#"))
    assert base == (
        "python -m specreason_sgl.servers.keyed sglang.launch_server "
        "--model-path Qwen/QwQ-32B --load-format safetensors --host 127.0.0.1 --port 30000 --tp-size 1 "
        "--base-gpu-id 0 --attention-backend flashinfer --dtype auto --kv-cache-dtype auto --context-length 10240 "
        "--mem-fraction-static 0.874 --max-total-tokens 29214 --max-running-requests 16 --chunked-prefill-size 2048"
    )
    assert options(small)["--mem-fraction-static"] == "0.609"
    assert options(small)["--port"] == "30001"
    assert "a secret" not in out


def test_the_page_shows_what_is_printed() -> None:
    page = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text(encoding="utf-8")

    assert all(f"# {line}" in page for line in prepare(read("qwq", {}), detect.describe("1x80")).lines())


PROBE = """\
import os, pathlib, sys
print(sys.argv, __name__, "SPECREASON_API_KEY" in os.environ)
print(pathlib.Path("/proc/self/cmdline").read_bytes())
"""


def printed(key: str | None, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """What comes of a printed command whose program tells how it was started."""
    (tmp_path / "launch_server.py").write_text(PROBE)
    command = launch("2x80").commands()[0].replace("python", shlex.quote(sys.executable), 1)
    inherited = {name: value for name, value in os.environ.items() if name != "SPECREASON_API_KEY"}
    search = os.pathsep.join((str(Path(__file__).parents[1]), str(tmp_path)))
    return subprocess.run(
        ["sh", "-c", command.replace("sglang.launch_server", "launch_server")],
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, "PYTHONPATH": search, **({} if key is None else {"SPECREASON_API_KEY": key})},
    )


def test_a_printed_command_shows_its_server_the_key_and_nobody_else(tmp_path: Path) -> None:
    ended = printed("-a secret'", tmp_path)
    told, seen = ended.stdout.splitlines()

    assert ended.returncode == 0, ended.stderr
    assert "'--model-path', 'Qwen/Qwen3-32B'" in told
    assert told.endswith("""\"--api-key=-a secret'"] __main__ False""")
    assert "secret" not in seen


@pytest.mark.parametrize("key", [None, ""])
def test_a_printed_command_starts_no_server_without_a_key(key: str | None, tmp_path: Path) -> None:
    ended = printed(key, tmp_path)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: without a key in `SPECREASON_API_KEY` the server would be open\nhint: ")


def armed(*arguments: str) -> PairSpec:
    return read(None, PAIR | {"small.arguments": list(arguments)})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--enable-metrics", "--trust-remote-code"], "`--trust-remote-code` may run code"),
        (["--trust-rem"], "`--trust-rem` may run code"),
        (["--config", "x.yaml"], "`--config` may run code"),
        (["--config=x.yaml"], "`--config` may run code"),
        (["--enable-custom-logit-processor"], "may run code"),
        (["--hicache-storage-backend", "dynamic"], "may run code"),
        (["--load-format", "pt"], "`--load-format pt` loads weights that are not safetensors"),
        (["--speculative-draft-load-format=pt"], "`--speculative-draft-load-format pt` loads weights"),
        (["--host", "0.0.0.0"], "`--host 0.0.0.0` opens the server to the network"),  # noqa: S104
        (["--host=::"], "`--host ::` opens"),
        (["--hos", "node-a"], "`--hos node-a` opens"),
        (["--host"], "`--host ` opens"),
    ],
)
def test_a_pair_that_runs_code_or_is_open_to_the_network_needs_trust(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "theirs.toml"
    file.write_text(
        f'base.model = "Qwen/Qwen3-32B"\nsmall = {{ model = "Qwen/Qwen3-1.7B", arguments = {json.dumps(arguments)} }}\n'
    )
    command = ("up", "--pair", str(file), "--gpus", "2x80", "--dry-run")

    assert call(monkeypatch, *command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err.partition("\n")[0]
    assert err.splitlines()[1:] == ["hint: if you want that, add `--trust`"]
    assert call(monkeypatch, *command, "--trust") == 0
    out, err = capsys.readouterr()
    assert "launch_server" in out
    assert err.startswith("note: small: `")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--enable-metrics", "--schedule-policy", "fcfs"],
        ["--host", "127.0.0.1"],
        ["--host=localhost", "--host", "::1"],
        ["--load-format=safetensors"],
        ["--hicache-storage-backend", "file"],
        ["--"],
    ],
)
def test_other_arguments_need_none(arguments: list[str]) -> None:
    assert risks(armed(*arguments)) == []


@pytest.mark.parametrize("name", sorted(stock()))
def test_stock_pairs_need_no_trust(name: str) -> None:
    assert risks(read(name, {})) == []


def test_the_options_that_need_trust_are_sglangs() -> None:
    from sglang.srt.server_args import ServerArgs

    from specreason_sgl.servers.gpu.pairfile import KEYS, LOAD_FORMATS, RUN_CODE

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)

    assert {*RUN_CODE, *KEYS, *LOAD_FORMATS, "--host", "--hicache-storage-backend"} <= {
        name for action in parser._actions for name in action.option_strings
    }


@pytest.mark.parametrize("arguments", [["--api-key", "x"], ["--api-key=x"], ["--admin-api", "x"]])
def test_a_key_in_a_pair_file_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=r"`small.arguments`.*it is taken from `SPECREASON_API_KEY`"):
        armed(*arguments)


@pytest.mark.parametrize("decode", ["off", "small", "ngram"])
def test_sglang_understands_the_commands(decode: str) -> None:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser(allow_abbrev=False)
    ServerArgs.add_cli_args(parser)
    planned = launch("2x80", decode=decode, cache_dtype="fp8_e4m3", base__quantization="fp8", base__dtype="bfloat16")
    for server in planned.servers(Path()):
        parsed = parser.parse_args(server.arguments)

        assert parsed.model_path == server.model
        assert parsed.kv_cache_dtype == "fp8_e4m3"
        assert 0 < parsed.mem_fraction_static < 1


def test_what_is_passed_through_wins() -> None:
    base, small = launch("2x80", base__arguments=["--host", "0.0.0.0"], attention_backend="fa3").commands()  # noqa: S104

    assert options(base)["--host"] == "0.0.0.0"  # noqa: S104
    assert options(small)["--host"] == "127.0.0.1"
    assert options(small)["--attention-backend"] == "fa3"


def test_a_drafting_model_takes_its_room_in_the_base_server() -> None:
    plain, drafting = launch("2x80"), launch("2x80", decode="auto")

    assert drafting.plan.base.weights > plain.plan.base.weights
    assert drafting.plan.base.tokens < plain.plan.base.tokens
    assert "--speculative-draft-model-path Qwen/Qwen3-1.7B" in drafting.commands()[0]
    assert "--speculative" not in drafting.commands()[1]


PLANNED = {
    row["name"]: row["config"]
    for row in map(json.loads, (Path(__file__).parent / "data" / "models.jsonl").read_text("utf-8").splitlines())
}


def folder(path: Path, model: str, **fields: Any) -> str:
    """A folder with what is known of a model's configuration, and no weights."""
    config = {"max_position_embeddings": 131072, **PLANNED[model], **fields}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(path)


def test_experts_under_another_name_are_no_small_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = folder(tmp_path, "baidu/ERNIE-4.5-21B-A3B-Thinking")
    pair = ["up", "--base", base, "--small", "Qwen/Qwen3-0.6B", "--dry-run", "--gpus"]

    assert call(monkeypatch, *pair, "1x16") == 1
    told = capsys.readouterr().err
    assert "do not fit: 41.8 GiB of weights" in told  # 40.7 of them the base model's
    assert "hint: what fits: 8 such cards" in told  # four for its 20 heads, and one for the small model
    assert call(monkeypatch, *pair, "1x80") == 0


def test_eight_bits_are_not_counted_as_four(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dict(configuration("Qwen/QwQ-32B")) | {"quantization_config": {"quant_method": "gptq", "bits": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    pair = ["up", "--base", str(tmp_path), "--small", "Qwen/Qwen3-0.6B", "--dry-run", "--gpus"]

    assert find(str(tmp_path)).weight_bytes() / GIB == pytest.approx(33.1, abs=0.1)
    assert call(monkeypatch, *pair, "1x32") == 1
    assert "in gptq and `Qwen/Qwen3-0.6B` do not fit" in capsys.readouterr().err
    assert call(monkeypatch, *pair, "1x48") == 0


def test_a_quantised_model_inside_another_fits_as_it_is(tmp_path: Path) -> None:
    base = folder(tmp_path, "Qwen/Qwen3.6-27B-FP8")
    planned = launch("1x48", base__model=base, small__model="Qwen/Qwen3-0.6B")

    assert planned.plan.base.weights / GIB == pytest.approx(27.4, abs=0.1)
    assert planned.plan.concurrency >= 3
    assert options(planned.commands()[0])["--max-mamba-cache-size"] == "20"
    assert "--max-mamba-cache-size" not in planned.commands()[1]


def test_the_base_model_takes_the_larger_of_two_cards() -> None:
    for cards, first in (("1x80,1x24", 0), ("1x24,1x80", 1)):
        planned = prepare(read("qwq", {}), detect.describe(cards))
        base, small = map(options, planned.commands())

        assert planned.plan.concurrency == 5
        assert (base["--tp-size"], base["--base-gpu-id"], small["--base-gpu-id"]) == ("1", str(first), str(1 - first))


def test_cards_of_unequal_size_are_shared_as_one_asks() -> None:
    planned = prepare(read("qwq", {"base.cards": 2}), detect.describe("1x80,1x48"))

    assert planned.plan.base.served.cards == 2


# Attention


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        ("openai/gpt-oss-20b", None),
        ("google/gemma-4-26B-A4B-it", None),
        ("LGAI-EXAONE/EXAONE-4.0-32B", None),
        ("zai-org/GLM-5", None),
        ("Qwen/Qwen3-8B", "flashinfer"),
        ("Qwen/Qwen3.6-27B-FP8", "flashinfer"),
    ],
)
def test_a_family_is_told_no_attention_that_sglang_refuses_it(model: str, backend: str | None, tmp_path: Path) -> None:
    planned = launch("8x141", base__model=folder(tmp_path, model), base__quantization="fp8")
    base, small = map(options, planned.commands())

    assert base.get("--attention-backend") == backend
    assert small["--attention-backend"] == "flashinfer"


def test_an_attention_that_sglang_refuses_is_refused_before_anything_starts(tmp_path: Path) -> None:
    base = folder(tmp_path, "openai/gpt-oss-20b")
    with pytest.raises(UsageError, match="with `--attention-backend flashinfer`") as told:
        launch("1x80", base__model=base, attention_backend="flashinfer")

    assert told.value.hint == "leave the option out, or take `triton`, `fa3`, `fa4`, `trtllm_mha`"
    assert "--attention-backend triton" in launch("1x80", base__model=base, attention_backend="triton").commands()[0]


def test_the_families_are_those_that_sglang_has_a_list_of_attentions_for() -> None:
    from sglang.srt.arg_groups import model_hook

    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(model_hook.handle_model_specific_adjustments))):
        if not isinstance(node, ast.If):
            continue
        asserted = [part for top in node.body for part in ast.walk(top) if isinstance(part, ast.Assert)]
        if any("backend" in ast.unparse(part.test) for part in asserted):
            words = {word for top in node.body for word in strings(top)}
            found |= {name: words for name in strings(node.test) if name.endswith(("ForCausalLM", "Generation"))}

    assert len(found) > 5
    for name, words in found.items():
        supported = attention.SUPPORTED.get(*family({"architectures": [name]}))
        assert (supported is None) == name.startswith("Lfm2")  # which is refused triton alone
        if supported and "triton" in words:
            assert set(supported) <= words


def strings(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


# Cards by name


@pytest.mark.parametrize(
    ("text", "count", "shown", "free"),
    [
        ("2xL4", 2, 22.5, 21.9),
        ("1xA10G", 1, 22.5, 21.9),
        ("1xA10", 1, 22.5, 21.9),
        ("1xA40", 1, 45.0, 44.4),
        ("1xl40s", 1, 45.0, 44.4),
        ("4xA6000", 4, 48.0, 47.4),
        ("1xNVIDIA RTX 4090", 1, 24.0, 23.4),
        ("1x4090", 1, 24.0, 23.4),
        ("1xA100-40GB", 1, 40.0, 39.4),
        ("8xA100", 8, 80.0, 79.4),
        ("1xH100-80GB", 1, 79.6, 79.0),
        ("1xNVIDIA H100 80GB HBM3", 1, 79.6, 79.0),
        ("1xH200", 1, 140.4, 139.8),
        ("1xB200", 1, 179.1, 178.4),
    ],
)
def test_cards_by_name_have_what_their_driver_shows(text: str, count: int, shown: float, free: float) -> None:
    found = detect.describe(text)

    assert len(found) == count
    assert found[0].memory / GIB == pytest.approx(shown, abs=0.05)
    assert found[0].free / GIB == pytest.approx(free, abs=0.05)


def test_a_named_card_has_less_than_what_it_is_sold_with() -> None:
    spec = read("qwq", {"base.quantization": "fp8"})
    named, sold = (prepare(spec, detect.describe(cards)) for cards in ("1xA40", "1x48"))

    assert named.plan.base.tokens < sold.plan.base.tokens


@pytest.mark.parametrize("text", ["1xH1000", "2xfoo", "1x2048"])
def test_a_card_that_is_not_known_is_told_with_the_list(text: str) -> None:
    with pytest.raises(UsageError, match="there is no card") as told:
        detect.describe(text)

    assert "`2x48`" in str(told.value.hint)
    assert "L40S" in str(told.value.hint)


def test_replicas_have_cards_of_their_own_behind_routers() -> None:
    planned = launch("4x80", replicas=2, base__cards=2)
    started = planned.servers(Path("logs"))
    cards = {
        server.name: int(server.arguments[server.arguments.index("--base-gpu-id") + 1])
        for server in started
        if not server.is_router
    }

    assert cards == {"base": 0, "base-2": 2, "small": 1, "small-2": 3}
    assert [server.stage for server in started] == [0, 0, 1, 1, 1, 2]
    assert [server.port for server in started] == [30010, 30012, 30011, 30013, 30000, 30001]
    assert started[4].arguments[-2:] == ["http://127.0.0.1:30010", "http://127.0.0.1:30012"]
    assert "sglang_router.launch_router" in planned.commands()[4]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--pair", "qwq", "--gpus", "1x48"], 1, "do not fit"),
        (["--pair", "qwq", "--gpus", "many"], 2, "does not describe GPUs"),
        (["--pair", "qwq", "--gpus", "1x80", "--replicas", "2"], 2, "there is 1 GPU here for 2 replicas"),
        (["--pair", "qwq", "--gpus", "1x80", "--decode", "small"], 2, "cannot draft tokens"),
        (["--pair", "qwq", "--gpus", "1x80", "--decode", "best"], 2, "`decode`"),
        (["--pair", "qwq", "--gpus", "1x80", "--context", "50000"], 2, "reads 40960 tokens at most"),
        (["--base", "no/such", "--small", "no/such", "--gpus", "1x80"], 2, "`no/such` is not known here"),
        (["--pair", "embedded", "--gpus", "1x80"], 2, "the embedded pair has no `gpus`"),
        (["--set", "context"], 2, "is not `name=value`"),
    ],
)
def test_what_cannot_be_started_is_one_clear_line(
    arguments: list[str], code: int, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "up", "--dry-run", *arguments) == code
    out, err = capsys.readouterr()
    assert complaint in err
    assert out == ""
    assert all(line.startswith(("error: ", "hint: ")) for line in err.splitlines())


def test_without_a_gpu_it_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "cards", lambda _: [])
    with pytest.raises(UsageError, match="there are no GPUs here") as told:
        prepare(read("qwq", {}), [])

    assert "--gpus 1x80 --dry-run" in str(told.value.hint)


def test_a_plan_is_json_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "up", "--pair", "qwq", "--gpus", "1x141", "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)

    assert told["plan"]["base"]["model"] == "Qwen/QwQ-32B"
    assert told["plan"]["concurrency"] == 22
    assert len(told["commands"]) == 2


# Starting


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        planned = prepare(read("qwq", {}), detect.describe("1x80"), port=taken.getsockname()[1])
        with pytest.raises(SpecReasonError, match="somebody listens on port"):
            planned.wanted(60)


def test_the_key_comes_from_the_environment_or_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = launch("1x80")
    made_up = planned.wanted(60)
    monkeypatch.setenv("SPECREASON_API_KEY", "mine")

    assert len(made_up.api_key) > 20
    assert made_up.api_key not in repr(made_up)
    assert planned.wanted(60).api_key == "mine"
    assert made_up.label == "Qwen/Qwen3-32B + Qwen/Qwen3-1.7B"


def test_servers_on_gpus_keep_the_environment_but_go_round_proxies() -> None:
    told = processes.gpu_environment({"CUDA_VISIBLE_DEVICES": "1", "HF_TOKEN": "t", "no_proxy": "here"})

    assert (told["CUDA_VISIBLE_DEVICES"], told["HF_TOKEN"]) == ("1", "t")
    assert told["NO_PROXY"] == "here,127.0.0.1,localhost"
    assert processes.gpu_environment({}, "10.0.0.7")["NO_PROXY"] == "127.0.0.1,localhost,10.0.0.7"


def test_servers_listen_where_they_are_told_to() -> None:
    planned = prepare(read("qwq", {}), detect.describe("2x80"), replicas=2, host="10.0.0.7")

    assert {each.url.rpartition(":")[0] for each in planned.servers(Path())} == {"http://10.0.0.7"}
    assert all("--host 10.0.0.7" in command for command in planned.commands())


@pytest.mark.parametrize(
    ("inherited", "waits"),
    [
        ({}, "0"),
        ({"CUDA_ENABLE_USER_TRIGGERED_COREDUMP": "1"}, "1"),
        ({"SGLANG_CUDA_COREDUMP_BEFORE_CRASH": "1"}, "1"),
    ],
)
def test_a_server_waits_for_a_dump_of_a_gpu_only_where_dumps_are_on(inherited: dict[str, str], waits: str) -> None:
    assert processes.gpu_environment(inherited)["SGLANG_CUDA_COREDUMP_BEFORE_CRASH"] == waits


def test_memory_of_a_gpu_that_ran_out_has_a_hint_of_its_own() -> None:
    assert "the GPU's memory ran out" in processes.hint("torch.OutOfMemoryError: CUDA out of memory.", Path("x.log"))


def running(label: str) -> pairs.RunningPair:
    return pairs.RunningPair(pairs.Address("http://b", "key"), pairs.Address("http://s", "key"), Path(), 1, label)


def test_a_pair_of_models_that_is_up_is_used_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "running", lambda: running("a + b"))

    assert PairOptions().or_kept_up() == PairOptions(base="http://b", small="http://s", name="a + b")
    assert PairOptions().or_kept_up().label == "a + b"
    assert not PairOptions().or_kept_up().is_embedded
    assert PairOptions(pair="embedded").or_kept_up() == PairOptions(pair="embedded")
    assert PairOptions(base="http://x").or_kept_up() == PairOptions(base="http://x")


def test_the_embedded_pair_that_is_up_stays_the_embedded_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "running", lambda: running("embedded"))

    assert PairOptions().or_kept_up() == PairOptions()


def test_a_server_that_serves_another_model_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        @staticmethod
        def json() -> dict[str, str]:
            return {"model_path": "another"}

    monkeypatch.setattr("urllib3.request", lambda *_, **__: Told)
    base, small = launch("1x80").servers(Path())
    with pytest.raises(SpecReasonError, match="the base server serves `another` instead of `Qwen/Qwen3-32B`"):
        pairs._check(base, "key")
    assert small.model == "Qwen/Qwen3-1.7B"
