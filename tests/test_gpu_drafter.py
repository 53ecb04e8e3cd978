"""A copy of a small model with the base model's tokens: what is in it, and that it drafts as the model itself would."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file as safe_load
from safetensors.torch import save_file
from vocabularies import CUT, put_cut, put_tokenizer

from specreason_sgl.embedded import BASE
from specreason_sgl.embedded.tales import said, tale
from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.servers.gpu import detect, drafter
from specreason_sgl.servers.gpu.decode import choose
from specreason_sgl.servers.gpu.drafter import planned
from specreason_sgl.servers.gpu.launch import prepare
from specreason_sgl.servers.gpu.pairfile import read
from specreason_sgl.servers.gpu.shapes import find
from specreason_sgl.servers.gpu.vocabulary import NO_ROW, Vocabulary, match

if TYPE_CHECKING:
    from torch import Tensor

# Which row stands for which token

ORDINARY = {"So": 0, " it": 1, " is": 2, ".": 3}


def vocabulary(rows: int, end: str, *added: str, begin: int = 4, **ordinary: int) -> Vocabulary:
    return Vocabulary(rows, ORDINARY | ordinary, {token: begin + place for place, token in enumerate(added)}, end)


def test_ordinary_tokens_keep_their_rows_and_marks_are_found_by_what_they_say_or_are_for() -> None:
    base = vocabulary(12, "<|im_end|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>")
    small = vocabulary(9, "<｜end｜>", "<｜end｜>", "<｜User｜>", "<think>")
    found = match(base, small)

    assert found.rows == (0, 1, 2, 3, NO_ROW, NO_ROW, 4, 6, *[NO_ROW] * 4)
    assert found.moved == ("<|im_end|>", "<think>")
    assert found.unknown == ("<|endoftext|>", "<|im_start|>")
    assert str(found) == (
        "6 of its 12 rows are the small model's own, from other ids those of '<|im_end|>', '<think>', "
        "it does not know '<|endoftext|>', '<|im_start|>'"
    )


def test_a_token_beyond_the_small_models_rows_is_unknown() -> None:
    base, small = vocabulary(8, "<e>", "<e>", "<a>", "<b>"), vocabulary(6, "<e>", "<e>", "<a>", "<b>")

    assert match(base, small).rows == (0, 1, 2, 3, 4, 5, NO_ROW, NO_ROW)


def test_a_base_model_may_have_fewer_rows() -> None:
    base, small = vocabulary(5, "<e>", "<e>"), vocabulary(99, "<e>", "<a>", "<e>")

    assert match(base, small).rows == (0, 1, 2, 3, 5)


@pytest.mark.parametrize("other", [{"So": 1, " it": 0}, {".": 7, " so": 3}])
def test_ordinary_tokens_under_other_ids_are_refused_and_the_first_is_named(other: dict[str, int]) -> None:
    base, small = vocabulary(9, "<e>"), vocabulary(9, "<e>", **other)

    with pytest.raises(
        UsageError, match=r"ordinary tokens have other ids in the small model, the first of them '(So|\.)'"
    ):
        match(base, small)


def test_tokens_that_a_terminal_would_obey_are_shown() -> None:
    base = vocabulary(9, "<e>", "\x1b[2J\n", "\u202e")

    assert "'\\x1b[2J\\n', '\\u202e'" in str(match(base, vocabulary(9, "<e>")))


# The copy's files


LAYER = "model.layers.0.mlp.up_proj.weight"
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 6, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 3, "intermediate_size": 5,
    "max_position_embeddings": 40960, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


def put_models(
    folder: Path, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> tuple[Path, Path, dict[str, Tensor]]:
    """A base model without weights and a small one in two files, with other rows and marks."""
    base, small = folder / "base", folder / "small"
    for path, rows, end, added in (
        (base, 12, "<|im_end|>", {"<|im_end|>": 4, "<think>": 5, "<tool>": 6}),
        (small, 9, "<e>", {"<e>": 4, "<User>": 5, "<think>": 6}),
    ):
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": rows, "eos_token_id": rows - 8}))
        put_tokenizer(path, ORDINARY, added, end)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    torch.manual_seed(seed)
    tensors = {
        "lm_head.weight": torch.randn(9, 6).to(dtype), "lm_head.bias": torch.randn(9).to(dtype),
        "model.embed_tokens.weight": torch.randn(9, 6).to(dtype), LAYER: torch.randn(5, 6).to(dtype),
        "model.norm.weight": torch.randn(6), "model.scale": torch.tensor(3.0),
    }  # fmt: skip
    files = {"model-1.safetensors": [*tensors][:2], "model-2.safetensors": [*tensors][2:]}
    for name, names in files.items():
        save_file({each: tensors[each] for each in names}, small / name, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {each: name for name, those in files.items() for each in those},
    }
    (small / "model.safetensors.index.json").write_text(json.dumps(index))
    return base, small, tensors


ROWS = (0, 1, 2, 3, 4, 6, NO_ROW, NO_ROW, NO_ROW, NO_ROW, NO_ROW, NO_ROW)


def written(base: Path, small: Path) -> Path:
    copy = planned(find(str(base)), find(str(small)))
    copy.write()
    return copy.folder


def stored(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
            assert file.metadata() == {"format": "pt"}
    return found


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_copy_has_the_small_models_rows_in_the_base_models_order(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafter, "PIECE", 40)  # a few rows of those at a time
    base, small, tensors = put_models(tmp_path, dtype)
    before = contents(small)
    found = stored(folder := written(base, small))

    assert contents(small) == before
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        if tensor.shape[:1] != (9,):
            assert torch.equal(found[name], tensor)
            continue
        assert found[name].dtype == dtype
        mean = tensor[[0, 1, 2, 3, 4, 6]].double().mean(0).to(dtype)
        for row, wanted in zip(found[name], ROWS, strict=True):
            if wanted == NO_ROW:
                assert torch.allclose(row.double(), mean.double(), rtol=2**-7, atol=1e-6)
            else:
                assert torch.equal(row, tensor[wanted])
    config = json.loads((folder / "config.json").read_text())
    assert config == {**CONFIG, "vocab_size": 12, "eos_token_id": 4}
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (base / name).read_bytes()
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(each.nbytes for each in found.values())


@given(numbers=st.lists(st.floats(-1e30, 1e30), min_size=1))
def test_numbers_are_rounded_as_torch_rounds_them(numbers: list[float]) -> None:
    exact = torch.tensor(numbers, dtype=torch.float64)
    found = torch.from_numpy(drafter._stored(exact.numpy(), "BF16").astype("<i2")).view(torch.bfloat16)

    assert torch.equal(found, exact.float().bfloat16())


def test_a_copy_is_written_once_and_again_when_its_source_is_another(tmp_path: Path) -> None:
    base, small, _ = put_models(tmp_path)
    copy = planned(find(str(base)), find(str(small)))
    first, again = copy.write(), copy.write()
    before = contents(copy.folder)
    shutil.rmtree(tmp_path / "small")
    shutil.rmtree(tmp_path / "base")
    put_models(tmp_path, seed=1)
    third = planned(find(str(base)), find(str(small))).write()

    told = f"a copy of `{small}` with the tokens of `{base}` {{}} `{copy.folder}`: 6 of its 12 rows are"
    for line, done in ((first, "is written to"), (again, "is in"), (third, "is written to")):
        assert line.startswith(told.format(done))
        assert "\n" not in line
    assert contents(copy.folder) != before


def test_a_copy_that_was_not_finished_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, small, _ = put_models(tmp_path)
    copy = planned(find(str(base)), find(str(small)))
    with monkeypatch.context() as patch:
        patch.setattr(drafter, "_pour", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(SpecReasonError, match="No space left on device"):
            copy.write()

    assert not [*copy.folder.parent.iterdir()]
    assert "is written to" in copy.write()


def break_file(small: Path) -> None:
    (small / "model-2.safetensors").write_bytes((small / "model-2.safetensors").read_bytes()[:-9])


def quantise(small: Path) -> None:
    save_file({"lm_head.weight": torch.zeros(9, 6, dtype=torch.int8)}, small / "model-1.safetensors")


def hide(small: Path) -> None:
    (small / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 8}))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (break_file, "is no file of tensors"),
        (quantise, "`lm_head.weight` is stored as I8"),
        (hide, "no tensor in .* has as many rows as its `vocab_size` says: 8"),
        (lambda small: (small / "model-1.safetensors").write_bytes(b"no"), "is no file of tensors"),
    ],
)
def test_weights_that_are_not_understood_are_told_in_a_line(change: Any, complaint: str, tmp_path: Path) -> None:
    base, small, _ = put_models(tmp_path)
    change(small)

    with pytest.raises(UsageError, match=complaint) as told:
        written(base, small)
    assert "\n" not in str(told.value)
    assert told.value.hint


def test_no_more_than_a_piece_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, small, _ = put_models(tmp_path)
    (small / "model.safetensors.index.json").unlink()
    (small / "model-2.safetensors").unlink()
    save_file(
        {"lm_head.weight": torch.randn(9, 400_000), LAYER: torch.randn(5, 400_000)}, small / "model-1.safetensors"
    )
    monkeypatch.setattr(drafter, "PIECE", 1 << 16)
    copy = planned(find(str(base)), find(str(small)))
    tracemalloc.start()
    copy.write()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert most < (small / "model-1.safetensors").stat().st_size


@pytest.mark.parametrize("models", [[], ["nowhere/base", "nowhere/small"]])
def test_the_command_says_in_a_line_what_it_needs(models: list[str]) -> None:
    command = [sys.executable, "-m", "specreason_sgl.servers.gpu.drafter", *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])

    assert done.returncode == 2
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]


# What is planned with it


def test_a_family_with_other_rows_drafts_by_a_copy(tmp_path: Path) -> None:
    base, small, _ = put_models(tmp_path)
    for method in ("auto", "small"):
        chosen = choose(method, find(str(base)), find(str(small)))

        assert chosen.drafter
        assert chosen.draft == str(chosen.drafter.folder)
        assert "STANDALONE" in chosen.arguments
        assert chosen.why.startswith(f"by a copy of `{small}` with the base model's tokens: 6 of its 12 rows")
        assert not chosen.drafter.folder.exists()


def test_n_grams_are_taken_by_itself_where_ordinary_tokens_differ(tmp_path: Path) -> None:
    base, small, _ = put_models(tmp_path)
    put_tokenizer(small, {"So": 1, " it": 0}, {}, "<e>")

    assert "2 ordinary tokens have other ids" in choose("auto", find(str(base)), find(str(small))).why
    with pytest.raises(UsageError, match=r"cannot draft tokens .* 2 ordinary tokens have other ids"):
        choose("small", find(str(base)), find(str(small)))


def test_a_copy_wants_both_models_on_this_machine(tmp_path: Path) -> None:
    base, small, _ = put_models(tmp_path)
    for shard in small.glob("*.safetensors"):
        shard.unlink()
    (small / "model.safetensors.index.json").unlink()
    missing = {"Qwen/QwQ-32B": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", str(base): str(small)}
    for first, second in missing.items():
        with pytest.raises(UsageError, match=r"cannot be made: .* not here \(`hf download"):
            choose("small", find(first), find(second))


def test_the_plan_has_room_for_the_copy_and_its_command_comes_first(tmp_path: Path) -> None:
    base, small, tensors = put_models(tmp_path)
    spec = read(None, {"base.model": str(base), "small.model": str(small), "decode": "small"})
    launch = prepare(spec, detect.describe("1x16"))
    first, second, third = launch.commands()
    draft = launch.plan.base.served.draft

    assert draft
    assert draft.weight_bytes() >= sum(each.nbytes for each in tensors.values() if each.ndim == 2) * 12 // 9 - 60
    assert launch.decode.draft
    assert f"--speculative-draft-model-path {launch.decode.draft}" in second
    assert "--speculative" not in third
    done = subprocess.run(
        [sys.executable, *first.split()[1:]], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.startswith(f"a copy of `{small}` with the tokens of `{base}` is written to")
    assert find(launch.decode.draft).vocab == find(str(base)).vocab == 12
    said: list[str] = []
    launch.wanted(1, said.append)
    assert [line.partition(" is in ")[0] for line in said] == [done.stdout.partition(" is written")[0]]


def test_a_token_without_a_row_of_its_own_is_never_the_likeliest(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, small = BASE, put_cut(tmp_path / "cut")
    drafter.write_copy(small, base, planned(find(str(base)), find(str(small))).match, tmp_path / "copy")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "copy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    unknown = range(CUT, AutoTokenizer.from_pretrained(base).vocab_size)
    told = [tale(seed) for seed in range(700_000, 700_010)]
    texts = ["\n\n".join([each.question, *said(each, "small", Random(0))]) for each in told]
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits[0].float() for text in texts])

    assert (logits[:, unknown] < logits.amax(-1, keepdim=True) - 1).all()
    # All of them together would not be drawn as often as one token in a hundred.
    assert logits.softmax(-1)[:, unknown].sum(-1).mean() < 0.01


@given(seed=st.integers(0, 999), lift=st.floats(-50, 50))
def test_a_mean_of_rows_stays_below_the_largest_logit_where_zeros_would_not(seed: int, lift: float) -> None:
    torch.manual_seed(seed)
    rows, state = torch.randn(20, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    rows += lift * state / (state @ state)  # all logits are as much higher
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "source", Path(scratch) / "target"
        save_file({"lm_head.weight": rows}, source)
        with source.open("rb") as given_file, target.open("wb") as copy:
            drafter._copy(given_file, copy, 20, np.array([*range(20), NO_ROW]))
        found = safe_load(target)["lm_head.weight"]
    logits = found @ state

    assert torch.equal(found[:20], rows)
    assert logits[20] < logits[:20].max()
