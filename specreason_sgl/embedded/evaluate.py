"""Measures a trained pair without a server: problems solved, steps drafted right, how well the judge tells.

``python -m specreason_sgl.embedded.evaluate`` prints the figures of the shipped pair; training ends with it too.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from specreason_sgl.embedded import BASE, SMALL, stories, tales
from specreason_sgl.embedded.samples import Candidate, Encoder, collate
from specreason_sgl.embedded.stories import Split, Story
from specreason_sgl.embedded.tales import Spoken, Tale
from specreason_sgl.text.prompts import DELIMITER


def generate(
    model: LlamaForCausalLM,
    encoder: Encoder,
    prompts: Sequence[str],
    most: int,
    end: Sequence[int],
    temperature: float = 0.0,
) -> list[list[int]]:
    """Continue each prompt until one of the ``end`` tokens, greedily or by sampling, many at a time."""
    together = 64 if model.device.type == "cpu" else 2048
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written: list[list[int]] = [[] for _ in prompts]
    pad = model.config.pad_token_id
    sampling: dict[str, Any] = {
        "do_sample": temperature > 0,
        **({"temperature": temperature} if temperature > 0 else {}),
    }
    for at in range(0, len(order), together):
        group = order[at : at + together]
        rows = [encoder.encode(prompts[i]) for i in group]
        longest = max(map(len, rows))
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=model.device)
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16):
            out = model.generate(
                ids,
                attention_mask=(ids != pad).long(),
                max_new_tokens=most,
                eos_token_id=list(end),
                pad_token_id=pad,
                **sampling,
            )
        for i, row in zip(group, out[:, longest:].tolist(), strict=True):
            stop = next((n for n, token in enumerate(row) if token in end), len(row))
            written[i] = row[: stop + 1]
    return written


Told = Story | Spoken
ENDS = (DELIMITER, "</think>")


def solves(model: LlamaForCausalLM, encoder: Encoder, told: Sequence[Told]) -> list[bool]:
    """Whether greedy decoding ends with the right answer, for each problem."""
    prompts = [encoder.prefix(t.question) for t in told]
    written = generate(model, encoder, prompts, 600, [model.config.eos_token_id])
    return [
        encoder.decode(ids).rstrip().endswith(t.answer_text + "<|im_end|>")
        for t, ids in zip(told, written, strict=True)
    ]


def drafts(
    model: LlamaForCausalLM,
    encoder: Encoder,
    told: Sequence[Told],
    rng: random.Random,
    each: int,
    temperature: float = 0.0,
    grade: Callable[[int, int, str], int] | None = None,
) -> list[tuple[int, Candidate]]:
    """Steps the model writes after right ones: (index of the problem, candidate with its true score).

    Args:
        model: Writes them.
        encoder: Makes tokens.
        told: Problems with their right steps.
        rng: Decides after which steps.
        each: So many steps of each problem.
        temperature: Of the model.
        grade: The score of a text as a problem's next step; a story's own if not given.
    """
    places = [
        (i, done) for i, t in enumerate(told) for done in rng.sample(range(len(t.steps)), min(each, len(t.steps)))
    ]
    prompts = [
        encoder.prefix(told[i].question) + "".join(step + DELIMITER for step in told[i].steps[:done])
        for i, done in places
    ]
    ends = [*(encoder.encode(end)[0] for end in ENDS), model.config.eos_token_id]
    written = generate(model, encoder, prompts, 80, ends, temperature)
    made = []
    for (i, done), ids in zip(places, written, strict=True):
        text = encoder.decode(ids[:-1] if ids and ids[-1] in ends else ids).strip()
        one = told[i]
        score = grade(i, done, text) if grade else stories.grade_step(one, done, text) if isinstance(one, Story) else 0
        made.append((i, Candidate(done, text, score)))
    return made


def tale_drafts(
    model: LlamaForCausalLM,
    encoder: Encoder,
    told: Sequence[Tale],
    rng: random.Random,
    each: int,
    temperature: float = 0.0,
) -> list[tuple[int, Candidate]]:
    """Steps of tales that the small model writes behind chains of both styles."""
    said = [in_both(one, number) for number, one in enumerate(told)]

    def grade(place: int, done: int, text: str) -> int:
        return tales.grade(told[place], range(done), text)

    return drafts(model, encoder, said, rng, each, temperature, grade)


def in_both(told: Tale, number: int) -> Spoken:
    """A tale's solution with steps of both styles, as a chain of both models has them."""
    return tales.spoken(told, "small", random.Random(f"both:{number}"), foreign=0.4)


def judge(
    model: LlamaForCausalLM, encoder: Encoder, told: Sequence[Told], made: Sequence[tuple[int, Candidate]]
) -> list[float]:
    """The expected score the model gives each candidate."""
    scores: list[float] = []
    for at in range(0, len(made), 32):
        group = made[at : at + 32]
        batch = collate([encoder.solved(told[i], [candidate]) for i, candidate in group], model.config.pad_token_id).to(
            str(model.device)
        )
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16):
            hidden = model.model(
                input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask, use_cache=False
            ).last_hidden_state
            logits = model.lm_head(hidden[batch.score_rows, batch.score_places]).float()
        digits = logits[:, encoder.digits].softmax(-1).cpu()
        scores += (digits @ torch.arange(10.0)).tolist()
    return scores


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The chance that a right candidate is scored above a wrong one, ties counting half."""
    good = [s for s, r in zip(scores, right, strict=True) if r]
    bad = [s for s, r in zip(scores, right, strict=True) if not r]
    if not good or not bad:
        return float("nan")
    return sum((g > b) + 0.5 * (g == b) for g in good for b in bad) / (len(good) * len(bad))


def measure(
    base: LlamaForCausalLM | None, small: LlamaForCausalLM, encoder: Encoder, split: Split, count: int
) -> dict[str, float]:
    """All figures of a pair over ``count`` fresh stories."""
    told = [stories.story(seed, split) for seed in range(count)]
    made = drafts(small, encoder, told, random.Random(0), each=3)
    right = [c.score == stories.RIGHT for _, c in made]
    figures = {
        "small_solves": sum(solves(small, encoder, told)) / count,
        "small_steps_right": sum(right) / len(right),
    }
    if base:
        scores = judge(base, encoder, told, made)
        own = [(i, Candidate(c.done, told[i].steps[c.done], stories.RIGHT)) for i, c in made]
        own_scores = judge(base, encoder, told, own)
        figures |= {
            "base_solves": sum(solves(base, encoder, told)) / count,
            "judge_auroc": auroc(scores, right),
            "accepts_right_at_7": sum(s >= 7 for s in own_scores) / len(own_scores),
            "accepts_wrong_at_7": sum(s >= 7 for s, r in zip(scores, right, strict=True) if not r)
            / max(1, right.count(False)),
        }
    return figures


def agreement(
    model: LlamaForCausalLM, encoder: Encoder, told: Sequence[Told], made: Sequence[tuple[int, Candidate]]
) -> float:
    """The share of the tokens of another model's steps that are this model's own choice behind those before them."""
    same = count = 0
    for i, candidate in made:
        before = encoder.encode(
            encoder.prefix(told[i].question) + "".join(step + DELIMITER for step in told[i].steps[: candidate.done])
        )
        ids = encoder.encode(candidate.text + DELIMITER)
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16):
            logits = model(input_ids=torch.tensor([before + ids], device=model.device), use_cache=False).logits[0]
        chosen = logits[len(before) - 1 : -1].argmax(-1).tolist()
        same += sum(a == b for a, b in zip(chosen, ids, strict=True))
        count += len(ids)
    return same / max(1, count)


def measure_tales(
    base: LlamaForCausalLM | None, small: LlamaForCausalLM, encoder: Encoder, split: Split, count: int
) -> dict[str, float]:
    """All figures of a pair over ``count`` fresh tales, what each solves by form among them."""
    told = [tales.tale(seed, split) for seed in range(count)]
    said = [in_both(one, number) for number, one in enumerate(told)]
    made = tale_drafts(small, encoder, told, random.Random(0), each=3)
    right = [candidate.score == stories.RIGHT for _, candidate in made]
    figures = {"small_steps_right": sum(right) / len(right)}
    solved = {"small": solves(small, encoder, said)}
    if base:
        judged = [(i, replace(c, meant=c.text)) for i, c in made]
        scores = judge(base, encoder, said, judged)
        accepted = [score >= 7 for score in scores]
        figures |= {
            "agreement_in_drafts": agreement(base, encoder, said, made[:200]),
            "agreement_in_base_steps": agreement(
                small, encoder, said, tale_drafts(base, encoder, told, random.Random(0), each=1)[:200]
            ),
            "judge_auroc": auroc(scores, right),
            "accepts_right_at_7": sum(a for a, r in zip(accepted, right, strict=True) if r) / max(1, sum(right)),
            "accepts_wrong_at_7": sum(a for a, r in zip(accepted, right, strict=True) if not r)
            / max(1, right.count(False)),
        }
        solved["base"] = solves(base, encoder, said)
    for name, done in solved.items():
        figures[f"{name}_solves"] = sum(done) / count
        for form in tales.FORMS:
            own = [each for each, one in zip(done, told, strict=True) if one.form == form]
            figures[f"{name}_solves_{form}"] = sum(own) / max(1, len(own))
    return figures


def measure_questions(model: LlamaForCausalLM, encoder: Encoder, path: Path) -> dict[str, float]:
    """The share of questions in a file of JSON lines that a model solves, over all and by form."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    told = [Spoken(row["question"], (), f"The answer is \\boxed{{{row['answer']}}}.", ()) for row in rows]
    done = solves(model, encoder, told)
    figures = {"solves": sum(done) / len(rows)}
    for form in dict.fromkeys(row["form"] for row in rows):
        own = [each for each, row in zip(done, rows, strict=True) if row["form"] == form]
        figures[f"solves_{form}"] = sum(own) / len(own)
    return figures


def load(folder: Path, device: str = "cpu") -> LlamaForCausalLM:
    """A model from a folder, ready to be asked."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()


def main() -> None:
    """Measure a pair and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--small", type=Path, default=SMALL)
    parser.add_argument("--tokenizer", type=Path, default=BASE)
    parser.add_argument("--count", type=int, default=300, help="fresh problems")
    parser.add_argument("--dataset", choices=("stories", "tales"), default="tales")
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--questions", type=Path, help="what the base model solves of these (JSON lines), and no more")
    arguments = parser.parse_args()
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(arguments.tokenizer)
    base = load(arguments.base) if arguments.base.exists() else None
    if arguments.questions:
        if base is None:
            parser.error(f"there is no model in {arguments.base}")
        told = measure_questions(base, Encoder(tokenizer), arguments.questions)
        print(json.dumps({name: round(value, 4) for name, value in told.items()}, indent=2))
        return
    measured = measure_tales if arguments.dataset == "tales" else measure
    figures = measured(base, load(arguments.small), Encoder(tokenizer), arguments.split, arguments.count)
    json.dump(
        {arguments.dataset: arguments.count, **{k: round(v, 4) for k, v in figures.items()}}, sys.stdout, indent=2
    )
    print()


if __name__ == "__main__":
    main()
