"""Measures a trained pair without a server: problems solved, steps drafted right, how well the judge tells.

``python -m specreason_sgl.embedded.evaluate`` prints the figures of the shipped pair; training ends with it too.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from specreason_sgl.embedded import stories
from specreason_sgl.embedded.samples import Candidate, Encoder, collate
from specreason_sgl.embedded.stories import Split, Story
from specreason_sgl.text.prompts import DELIMITER


def generate(
    model: LlamaForCausalLM,
    encoder: Encoder,
    prompts: Sequence[str],
    most: int,
    end: Sequence[int],
    temperature: float = 0.0,
) -> list[list[int]]:
    """Continue each prompt until one of the ``end`` tokens, greedily or by sampling, 64 at a time."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written: list[list[int]] = [[] for _ in prompts]
    pad = model.config.pad_token_id
    sampling: dict[str, Any] = {
        "do_sample": temperature > 0,
        **({"temperature": temperature} if temperature > 0 else {}),
    }
    for at in range(0, len(order), 64):
        group = order[at : at + 64]
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


def solves(model: LlamaForCausalLM, encoder: Encoder, told: Sequence[Story]) -> list[bool]:
    """Whether greedy decoding ends with the right answer, for each story."""
    prompts = [encoder.prefix(t.question) for t in told]
    written = generate(model, encoder, prompts, 600, [model.config.eos_token_id])
    return [
        encoder.decode(ids).rstrip().endswith(t.answer_text + "<|im_end|>")
        for t, ids in zip(told, written, strict=True)
    ]


def drafts(
    model: LlamaForCausalLM,
    encoder: Encoder,
    told: Sequence[Story],
    rng: random.Random,
    each: int,
    temperature: float = 0.0,
) -> list[tuple[int, Candidate]]:
    """Steps the model writes after right ones: (index of the story, candidate with its true score)."""
    places = [
        (i, done) for i, t in enumerate(told) for done in rng.sample(range(len(t.steps)), min(each, len(t.steps)))
    ]
    prompts = [
        encoder.prefix(told[i].question) + "".join(step + DELIMITER for step in told[i].steps[:done])
        for i, done in places
    ]
    ends = [encoder.encode(DELIMITER)[0], encoder.encode("</think>")[0], model.config.eos_token_id]
    written = generate(model, encoder, prompts, 80, ends, temperature)
    made = []
    for (i, done), ids in zip(places, written, strict=True):
        text = encoder.decode(ids[:-1] if ids and ids[-1] in ends else ids).strip()
        made.append((i, Candidate(done, text, stories.grade_step(told[i], done, text))))
    return made


def judge(
    model: LlamaForCausalLM, encoder: Encoder, told: Sequence[Story], made: Sequence[tuple[int, Candidate]]
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


def load(folder: Path, device: str = "cpu") -> LlamaForCausalLM:
    """A model from a folder, ready to be asked."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()


def main() -> None:
    """Measure a pair and print the figures as JSON."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, default=here / "base")
    parser.add_argument("--small", type=Path, default=here / "small")
    parser.add_argument("--tokenizer", type=Path, default=here / "base")
    parser.add_argument("--count", type=int, default=300, help="fresh stories")
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    arguments = parser.parse_args()
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(arguments.tokenizer)
    base = load(arguments.base) if arguments.base.exists() else None
    figures = measure(base, load(arguments.small), Encoder(tokenizer), arguments.split, arguments.count)
    json.dump({"stories": arguments.count, **{k: round(v, 4) for k, v in figures.items()}}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
