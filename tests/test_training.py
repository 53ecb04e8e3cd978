"""What training does to the weights between its steps."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from specreason_sgl.embedded import BASE, SMALL, stories, tales
from specreason_sgl.embedded.evaluate import generate, load, measure_questions
from specreason_sgl.embedded.samples import Candidate, Encoder, Sample, collate, tale_candidates
from specreason_sgl.embedded.tales import words as tales_words
from specreason_sgl.embedded.tales import wrong
from specreason_sgl.embedded.tales.arithmetic import named
from specreason_sgl.embedded.tales.facts import compute
from specreason_sgl.embedded.tales.styles import word, wordings
from specreason_sgl.embedded.tokenizer import HEARD, TURN_START, build, heard, widen
from specreason_sgl.embedded.train import (
    Learner,
    Muon,
    Stage,
    batches,
    blend,
    deepen,
    main,
    run_stage,
    train,
    widened,
    write_tale_drafts,
)
from specreason_sgl.embedded.turns import TURNS, planned
from specreason_sgl.text.prompts import EMBEDDED

IDS = torch.arange(1, 9)[None]


def model(seed: int, layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "vocab_size": 16}
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, tie_word_embeddings=True, **sizes)).eval()


def says(one: LlamaForCausalLM) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = one(input_ids=IDS).logits
    return logits


def test_a_deeper_model_says_the_same_at_first() -> None:
    shallow = model(0)
    deep = deepen(shallow, 5).eval()

    assert deep.config.num_hidden_layers == 5
    torch.testing.assert_close(says(deep), says(shallow))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_stop_on_their_way(share: float) -> None:
    begun, ended, blended = model(1), model(2), model(2)
    blend(blended, begun.state_dict(), share)

    for name, value in blended.state_dict().items():
        there, here = ended.state_dict()[name], begun.state_dict()[name]
        torch.testing.assert_close(value, here + share * (there - here))
    if share in (0.0, 1.0):
        torch.testing.assert_close(says(blended), says(ended if share else begun))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """The tokenizer of the stories."""
    folder = tmp_path_factory.mktemp("narrow")
    build(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="module")
def wider(narrow: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return widen(Path(narrow.name_or_path), tmp_path_factory.mktemp("wider"), 704, read=300)


def test_a_wider_vocabulary_keeps_every_number_and_loses_no_text(
    narrow: PreTrainedTokenizerFast, wider: PreTrainedTokenizerFast
) -> None:
    told = tales.tale(3)
    text = "\n\n".join([told.question, *tales.said(told, "base", Random(0))]) + "\n</think>\n\n<|im_end|>"
    before, after = narrow.get_vocab(), wider.get_vocab()

    assert {piece: after[piece] for piece in before} == before
    assert len(wider) == 704
    assert wider.decode(wider.encode(text)) == narrow.decode(narrow.encode(text)) == text
    assert len(wider.encode(text)) < len(narrow.encode(text))


def test_what_training_never_holds_is_spelled_in_pieces_that_it_does(narrow: PreTrainedTokenizerFast) -> None:
    made = json.loads(narrow.backend_tokenizer.to_str())
    texts = ["Kim has 3 coins."] * HEARD + ["Kim has 3 seeds."] * (HEARD - 1)
    spelled = Tokenizer.from_str(json.dumps({**made, "model": made["model"] | {"merges": heard(made, texts)}}))

    assert narrow.tokenize(" coins seeds") == ["Ġcoins", "Ġseeds"]
    assert spelled.encode(" coins").tokens == ["Ġcoins"]
    assert spelled.encode(" seeds").tokens != ["Ġseeds"]
    assert spelled.decode(spelled.encode(" seeds and coins").ids) == " seeds and coins"
    assert spelled.get_vocab() == narrow.get_vocab()


def test_the_wider_vocabulary_has_no_word_of_tests_for_itself(
    narrow: PreTrainedTokenizerFast, wider: PreTrainedTokenizerFast
) -> None:
    unheard = [word for word in (*stories.THINGS, *stories.NAMES) if tales_words.split_of(word) != "train"]

    assert unheard
    assert all(narrow.tokenize(f" {word}") == [f"Ġ{word}"] for word in unheard)
    assert all(len(wider.tokenize(f" {word}")) > 1 for word in unheard)
    assert wider.tokenize("\n\n") == narrow.tokenize("\n\n")
    asked = EMBEDDED.judge + EMBEDDED.user_content("")
    assert wider.tokenize(asked) == narrow.tokenize(asked)


def test_new_entries_begin_as_the_mean_of_their_pieces(
    narrow: PreTrainedTokenizerFast, wider: PreTrainedTokenizerFast
) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": len(narrow)}
    old = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, tie_word_embeddings=True, **sizes))
    new = widened(old, narrow, wider)
    before, after = old.get_input_embeddings().weight, new.get_input_embeddings().weight

    torch.testing.assert_close(after[: len(narrow)], before)
    piece = wider.convert_ids_to_tokens(700)
    parts = [part.id for part in narrow.backend_tokenizer.model.tokenize(piece)]
    assert len(parts) > 1
    torch.testing.assert_close(after[700], before[parts].mean(0))
    assert torch.equal(new.lm_head.weight, after)


STAGE = Stage("read", 4, 1e-3, layers=1, style="small", operations=2, batch=2, foreign=0.5)


def a_learner(encoder: Encoder, entries: int, **knobs: Any) -> Learner:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": entries}
    return Learner(LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **sizes)), encoder.digits, **knobs)


def test_a_stage_that_was_left_off_goes_on_to_the_same_weights(wider: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    encoder = Encoder(wider)
    whole, parts = tmp_path / "whole" / "small", tmp_path / "parts" / "small"
    whole.mkdir(parents=True)
    parts.mkdir(parents=True)
    assert run_stage(a_learner(encoder, len(wider)), STAGE, encoder, whole, "cpu", 0)

    for _ in range(2):
        assert not run_stage(a_learner(encoder, len(wider)), STAGE, encoder, parts, "cpu", 0, until=0.0)
    assert (parts / "read.checkpoint.pt").exists()
    assert run_stage(a_learner(encoder, len(wider)), STAGE, encoder, parts, "cpu", 0)

    made = [json.loads((folder / "read" / "made.json").read_text()) for folder in (whole, parts)]
    assert made[0]["became"] == made[1]["became"] != made[0]["began_with"] == made[1]["began_with"]


def test_samples_are_the_same_however_many_processes_make_them(wider: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(wider)
    stage = replace(STAGE, steps=20)
    alone, together = (list(batches(encoder, stage, 3, 0, None, workers)) for workers in (0, 1))

    assert len(alone) == len(together) == 17
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(alone, together, strict=True))


def test_a_branch_sees_itself_and_the_trunk_before_it_and_nobody_sees_a_branch(wider: PreTrainedTokenizerFast) -> None:
    encoder, told = Encoder(wider), tales.tale(5, "train")
    spoken = tales.spoken(told, "base", Random(3), 0.3)
    samples = [encoder.solved(spoken, tale_candidates(Random(1), told, 2)), encoder.solved(spoken)]
    mask = collate(samples, encoder.pad).mask

    assert mask is not None
    for sample, seen in zip(samples, mask[:, 0].tolist(), strict=True):
        for query, branch in enumerate(sample.branch):
            visible = {
                key
                for key in range(query + 1)
                if sample.branch[key] == branch or (sample.branch[key] == 0 and key < sample.roots[branch])
            }
            assert {key for key, is_seen in enumerate(seen[query]) if is_seen} == visible
    assert collate(samples[1:], encoder.pad).mask is None


def test_steps_of_many_tales_are_drafted_and_kept_for_the_judge(tmp_path: Path, wider: PreTrainedTokenizerFast) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": len(wider)}
    ends = {"pad_token_id": wider.pad_token_id, "eos_token_id": wider.eos_token_id}
    write_tale_drafts(
        LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **sizes, **ends)).eval(), Encoder(wider), tmp_path / "d", 5, 0
    )
    rows = [json.loads(line) for line in (tmp_path / "d").read_text(encoding="utf-8").splitlines()]
    steps = {number: len(tales.tale(number, "train").steps) for number in range(5)}

    assert [row["seed"] for row in rows] == [n for n in (0, 2, 4, 1, 3) for _ in range(min(4, steps[n]))]
    assert all(0 <= row["done"] < steps[row["seed"]] for row in rows)
    assert len({(row["seed"], row["done"]) for row in rows}) == len(rows)


def test_matrices_are_improved_together_as_torch_improves_each() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((8, 4), (4, 8), (8, 4), (6, 6))]
    theirs = [nn.Parameter(matrix.detach().clone()) for matrix in ours]
    tools = (
        Muon(ours, 0.01),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=Muon.DECAY, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        ours[2].grad = theirs[2].grad = None
        for tool in tools:
            tool.step()

    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=2e-4)


@pytest.mark.parametrize("kind", TURNS, ids=lambda kind: kind.__name__)
def test_every_turn_of_other_methods_is_a_sample_with_something_to_learn(
    wider: PreTrainedTokenizerFast, kind: Callable[..., Sample]
) -> None:
    encoder = Encoder(wider)
    sample = kind(encoder, Random(1), tales.tale(5, "train"), "base")

    lists = (sample.ids, sample.positions, sample.branch, sample.targets, sample.off_course, sample.mismatch)
    assert len({len(each) for each in lists}) == 1
    learned = encoder.decode([target for target in sample.targets if target >= 0])
    assert learned.strip()
    assert sample.branch.count(0) > 0


def test_steps_of_tales_are_judged_by_what_they_say(wider: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(wider)
    told = tales.tale(5, "train")
    chosen = tale_candidates(Random(2), told, 4)
    sample = encoder.solved(tales.spoken(told, "base", Random(1), 0.5), chosen)

    assert [score for _, score in sample.scores] == [each.score for each in chosen]
    assert all(tales.grade(told, range(each.done), each.text) == each.score for each in chosen)
    assert all((each.meant == each.text) == (each.score == tales.RIGHT) for each in chosen)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_as_many_of_the_steps_to_judge_are_wrong_as_wanted_however_many_drafts_are_right(share: float) -> None:
    told = tales.tale(5, "train")
    slip = wrong.flip_result(told.steps[0], "small", Random(0))
    drafts = [(0, slip), *((done, word(step, "small", Random(9))) for done, step in enumerate(told.steps))]
    chosen = [tale_candidates(Random(number), told, 1, drafts=drafts, wrong=share)[0] for number in range(200)]

    assert {each.done for each in chosen} == {0}, "where a wrong one was drafted"
    assert abs(sum(each.score != tales.RIGHT for each in chosen) - 200 * share) < 30
    assert abs(sum(each.text == slip for each in chosen) - 140 * share) < 30
    assert {text for _, text in drafts[:2]} <= {each.text for each in chosen}


def test_steps_of_the_other_style_are_read_and_not_learned(wider: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(wider)
    told = tales.tale(5, "train")
    spoken = tales.spoken(told, "base", Random(3), 0.5)
    sample = encoder.solved(spoken)
    learned = encoder.decode([target for target in sample.targets if target >= 0])

    assert 0 < sum(spoken.own) < len(spoken.own)
    assert all((step in learned) == own for step, own in zip(spoken.steps, spoken.own, strict=True))
    assert told.answer_text in learned


def test_right_steps_of_both_styles_are_foreseen_and_wrong_ones_up_to_where_they_go_wrong(
    wider: PreTrainedTokenizerFast,
) -> None:
    encoder = Encoder(wider)
    told = tales.tale(5, "train")
    spoken = tales.spoken(told, "base", Random(3), 0.5)
    right = word(told.steps[0], "small", Random(1))
    slip = wrong.flip_result(told.steps[0], "small", Random(1))
    sample = encoder.solved(spoken, [Candidate(0, slip, 1, right)])

    def foreseen(branch: int) -> list[int]:
        return [t for t, b in zip(sample.foreseen, sample.branch, strict=True) if b == branch and t >= 0]

    assert encoder.decode(foreseen(0)) == "\n\n".join(spoken.steps) + "\n</think>\n\n"
    common = next(n for n, (a, b) in enumerate(zip(right, slip, strict=False)) if a != b)
    assert encoder.decode(encoder.encode(right)[:1] + foreseen(1)).startswith(right[: common + 1])
    assert not encoder.decode(foreseen(1)).endswith(slip)


@pytest.mark.parametrize("foreseen", [0, 1])
def test_what_is_foreseen_in_the_middle_teaches_the_layers_below_alone(
    foreseen: int, wider: PreTrainedTokenizerFast
) -> None:
    encoder = Encoder(wider)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": len(wider)}
    learner = Learner(LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **sizes)), encoder.digits, foreseen)
    sample = encoder.solved(tales.spoken(tales.tale(5, "train"), "small", Random(3), 1.0))
    sample.targets = [-100] * len(sample.ids)
    loss, parts = learner(collate([sample], encoder.pad))

    assert ("foresight" in parts) == (foreseen > 0)
    if foreseen:
        loss.backward()
        below, above = (layer.self_attn.o_proj.weight.grad for layer in learner.model.model.layers)
        assert below is not None
        assert below.abs().max() > 0
        assert above is None or above.abs().max() == 0


def test_the_next_token_counts_for_as_much_as_a_stage_says(wider: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(wider)
    told = tales.tale(5, "train")
    spoken = tales.spoken(told, "base", Random(3), 0.0)
    batch = collate([encoder.solved(spoken, tale_candidates(Random(1), told, 2))], encoder.pad)
    with torch.autocast("cpu", torch.bfloat16):
        (once, parts), (thrice, _) = (a_learner(encoder, len(wider), solving=much)(batch) for much in (1, 3))

    assert parts["judge"] > 0
    assert (thrice - once).item() == pytest.approx(2 * parts["solve"], rel=1e-4)


def test_a_word_that_is_copied_wrongly_is_a_wrong_step() -> None:
    told = tales.tale(5, "train")
    found = [wrong._misspelt(Random(seed), told, told.steps[0]) for seed in range(30)]

    for other in filter(None, found):
        texts = {text for style in tales.STYLES for text in wordings(other, style)}
        right = {text for step in told.steps for style in tales.STYLES for text in wordings(step, style)}
        assert all(tales.grade(told, (), text) < 7 for text in texts - right)
    assert sum(other is not None for other in found) > 20


@pytest.mark.parametrize("seed", range(200))
def test_neighbours_that_are_not_next_are_wrong_steps(seed: int) -> None:
    told = tales.invent(Random(seed), "train", ("expressions",), shortest=2)
    other = wrong._other_order(Random(seed), told, told.steps[0])

    if other:
        assert all(tales.grade(told, (), text) < 7 for style in tales.STYLES for text in wordings(other, style))


def test_what_is_solved_of_questions_in_a_file_is_told_by_form(tmp_path: Path) -> None:
    small, encoder = load(SMALL), Encoder(PreTrainedTokenizerFast.from_pretrained(SMALL))
    question = tales.tale(0).question
    (written,) = generate(small, encoder, [encoder.prefix(question)], 600, [small.config.eos_token_id])
    answer = encoder.decode(written).rpartition("{")[2].partition("}")[0]
    rows = [{"question": question, "answer": said, "form": form} for said, form in ((answer, "a"), ("none", "b"))]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    figures = measure_questions(small, encoder, tmp_path / "some.jsonl")

    assert figures == {"solves": 0.5, "solves_a": 1.0, "solves_b": 0.0}


def test_lists_to_learn_copying_from_are_said_twice_and_the_second_time_is_predicted(
    wider: PreTrainedTokenizerFast,
) -> None:
    encoder, orders = Encoder(wider), set()
    for number in range(20):
        sample = encoder.recall(Random(number))
        half = sample.targets.index(next(target for target in sample.targets if target >= 0)) + 1
        first, second = encoder.decode(sample.ids[1:half]), encoder.decode(sample.ids[half:])
        assert sorted(first.splitlines()) == sorted(second.splitlines())
        assert sample.targets[half - 1 : -1] == sample.ids[half:]
        orders.add(first == second)
    assert orders == {False, True}


def test_lists_hold_numbers_of_all_lengths_where_a_stage_says_so(wider: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(wider)

    def lengths(*, long_numbers: bool) -> set[int]:
        told = "".join(encoder.decode(encoder.recall(Random(n), long_numbers=long_numbers).ids) for n in range(20))
        return {len(number) for number in re.findall(r"\d+", told)}

    assert lengths(long_numbers=True) == {1, 2, 3, 4}
    assert lengths(long_numbers=False) == {1, 2}


def test_of_calculations_alone_what_is_written_out_is_predicted_and_right(wider: PreTrainedTokenizerFast) -> None:
    encoder, operations = Encoder(wider), set()
    for number in range(40):
        sample = encoder.calculate(Random(number), "base")
        written = []
        for line in encoder.decode(sample.ids).removeprefix(TURN_START).splitlines():
            asked, left, operation, right = re.findall(r"^((\d+)([-+x/])(\d+))", line)[0]
            result = compute(int(left), operation, int(right))
            assert line == named(int(left), operation, int(right), result)
            assert 0 <= result <= 9999
            operations.add(operation)
            written.append(line.removeprefix(asked) + "\n")
        assert encoder.decode([target for target in sample.targets if target >= 0]) == "".join(written)
    assert operations == set("+-x/")


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_holds_what_is_to_be_calculated_and_its_results_are_only_read(
    seed: int, wider: PreTrainedTokenizerFast
) -> None:
    encoder, told = Encoder(wider), tales.tale(seed, "train")
    sample = planned(encoder, told)
    text = encoder.decode(sample.ids)
    learned = encoder.decode([token for token in sample.targets if token >= 0])

    calculations = [step for step in told.steps if step.operation]
    for step in calculations:
        assert f"{step.left}{step.operation}{step.right}={step.value}.\n\n" in text
    asked = "".join(f"{step.left}{step.operation}{step.right}" for step in calculations)
    assert learned == f"{asked}The answer is {told.answer}.\n</think>\n\n{told.answer_text}<|im_end|>"


def test_plans_may_be_longer_than_the_tales_of_a_stage(wider: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(wider)
    stage = replace(STAGE, planned=1.0, long=1.0, batch=16)
    texts = [encoder.decode(row.tolist()) for batch in batches(encoder, stage, 0, 0) for row in batch.ids]

    assert stage.operations < max(text.count("=") for text in texts) <= 8


def test_plain_steps_are_in_their_most_common_wording_and_others_in_any() -> None:
    told = tales.tale(3, "train")
    plain = {tales.spoken(told, "base", Random(seed), plain=True).steps for seed in range(50)}
    mixed = [tales.spoken(told, "base", Random(seed), 0.5, plain=True) for seed in range(50)]

    assert plain == {tuple(wordings(step, "base")[0] for step in told.steps)}
    assert len({tales.spoken(told, "base", Random(seed)).steps for seed in range(50)}) > 1
    assert all(
        text == wordings(step, "base")[0]
        for each in mixed
        for step, text, own in zip(told.steps, each.steps, each.own, strict=True)
        if own
    )
    assert len({text for each in mixed for text, own in zip(each.steps, each.own, strict=True) if not own}) > 4


@pytest.mark.parametrize("questions", [False, True])
def test_questions_are_predicted_where_a_stage_says_so(questions: bool, wider: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(wider)
    told = tales.tale(3, "train")
    sample = encoder.solved(tales.spoken(told, "base", Random(0)), learn_question=questions)
    asked = len(encoder.encode(encoder.prefix(told.question)))

    assert (sample.targets[: asked - 1] == sample.ids[1:asked]) is questions
    assert sample.targets[asked - 1] == sample.ids[asked], "what is answered is learned in any case"


def test_training_goes_on_behind_the_last_stage_that_was_finished(tmp_path: Path) -> None:
    for folder in (tmp_path / "tokenizer", tmp_path / "base" / "copy"):
        shutil.copytree(BASE, folder)

    assert train("base", tmp_path, "cpu", 0, last="copy", recipe="tales", until=0.0)
    assert not (tmp_path / "base" / "read").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["tiny"], "there is no model tiny"), (["base", "--stage", "sleep"], "base has the stages read, copy, ")],
)
def test_a_model_or_stage_that_is_none_is_refused_before_anything_is_written(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["train", *arguments, "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
