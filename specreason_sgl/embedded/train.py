"""Train the embedded pair: ``python -m specreason_sgl.embedded.train``.

Two recipes: `stories` makes a pair from scratch, `tales` goes on from the weights that are there.

The small model only learns to solve. The base model goes through stages: solving, with checking drills beside
it; judging steps in their chain, corrupted ones first and the small model's own drafts later; then it is made
deep by inserting layers that start as the identity, so that nothing learned is lost, and trained on.
On tales both go on, each in its own style: reading first, then judging steps of both and the other turns.
Everything is seeded. A stage that was finished is not run again, one that was interrupted goes on from its
last checkpoint. Beside the weights of each stage stands what made them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import pickle
import random
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from specreason_sgl.embedded import BASE, stories, tales
from specreason_sgl.embedded.evaluate import drafts, load, measure, measure_tales, tale_drafts
from specreason_sgl.embedded.samples import Batch, Encoder, Sample, candidates, collate, tale_candidates
from specreason_sgl.embedded.tales import Style
from specreason_sgl.embedded.tokenizer import WIDER, build, widen
from specreason_sgl.embedded.turns import planned, turned

BATCH = 24
DRAFTED = {"stories": 4000, "tales": 139_000}
"""Training problems of which the small model drafts steps, by recipe."""
MEASURED = 300
"""Fresh stories that the finished pair is measured on."""
FORESIGHT = 0.3
"""How much foreseeing counts beside writing."""
KEPT_EVERY_S = 600
"""Seconds between two checkpoints."""
LONG = 2
"""So many operations a long tale has at least: four of ten tales have one."""
PLANNED = 8
"""The most operations of a tale of which the calculations alone are told: each teaches what one more sentence means."""
SORTED_OVER = 8
"""Batches are cut from this many batches' worth of samples sorted by length, so that little is padding."""

Drafted = Sequence[tuple[int, Sequence[tuple[int, str]]]]
"""Seeds of training problems, each with the drafts of its steps: after how many right ones, and the text."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training."""

    name: str
    steps: int
    rate: float
    """Peak learning rate."""
    layers: int
    judgements: int = 0
    """Candidates judged per story."""
    judged: float = 1.0
    """Share of the stories in which candidates are judged."""
    drilled: float = 0.0
    """Share of the samples that are checking drills."""
    noised: float = 0.0
    """Share of the samples that are solutions with wrong digits to be found."""
    frozen: int = 0
    """So many layers at the bottom are left as they are."""
    longest: int = 10
    """Stories with more steps are left out."""
    drafts: bool = False
    """Whether the small model's own wrong drafts are among the candidates."""
    drafted: float = 0.6
    """Share of the judged stories that are such as the small model drafted wrong steps of."""
    wrong: float = 0.5
    """Share of the candidates of tales that are wrong: the more are, the fewer of them the judge accepts."""
    hard: float = 0.0
    """Share of the stories that are of the hard families only."""
    long: float = 0.0
    """Share of the problems that are long ones: finding the next sentence among many is what goes wrong last."""
    final: float = 0.1
    """The learning rate at the end, as a share of the peak; it falls over the last 40 %."""
    blended: float = 1.0
    """How far the weights go from where the stage began to where it ended: on the way what the stage taught is already
    there, and what it disturbed is still there (arXiv 2109.01903)."""
    style: Style | None = None
    """Whether the problems are tales, and in which style they are solved."""
    forms: tuple[str, ...] = tuple(tales.FORMS)
    """The forms of the tales."""
    operations: int = tales.OPERATIONS
    """Tales with more operations are left out."""
    foreign: float = 0.0
    """Share of a tale's steps that are in the other style, to be read and gone on from."""
    turned: float = 0.0
    """Share of the tales with one of the turns or hints that other methods use."""
    planned: float = 0.0
    """Share of the tales of which the calculations alone are told."""
    plain: bool = False
    """Whether the steps to be learned are all in their most common wording."""
    questions: bool = False
    """Whether the words of tales' questions are predicted too."""
    recalled: float = 0.0
    """Share of the samples that are lists said twice, to learn copying from."""
    long_numbers: bool = False
    """Whether the numbers of these lists have up to four digits."""
    calculated: float = 0.0
    """Share of the other samples that are calculations alone."""
    foreseen: int = 0
    """Behind so many layers a helper foresees the next token of right steps in either style; nowhere if 0."""
    solving: float = 1.0
    """What the next token counts for, where a judgement counts 1."""
    batch: int = BATCH


@dataclass(frozen=True)
class ModelSize:
    """The size of one model."""

    width: int
    heads: int
    inner: int
    stages: tuple[Stage, ...]


SIZES = {
    "small": ModelSize(96, 2, 256, (Stage("solve", 500, 4e-3, layers=2),)),
    "base": ModelSize(
        192,
        4,
        512,
        (
            Stage("solve", 500, 3e-3, layers=6, drilled=0.1, final=1.0),
            Stage("find", 400, 3e-3, layers=10, noised=0.8, frozen=6, longest=6, final=1.0),
            Stage(
                "judge", 250, 3e-3, layers=10, judgements=4, noised=0.1, frozen=6, longest=6, drafts=True, final=0.85
            ),
            Stage("deep", 100, 3e-3, layers=16, judgements=4, frozen=6, longest=5, drafts=True, final=1.0),
            Stage("settle", 130, 5e-4, layers=16, judgements=3, longest=7, drafts=True, final=0.02),
            Stage("polish", 340, 7e-4, layers=16, judgements=3, judged=0.2, drafts=True, final=0.02),
            Stage("strengthen", 300, 1e-3, layers=16, judgements=4, judged=0.3, drafts=True, hard=0.4, final=0.7),
            Stage("finish", 400, 7e-4, layers=16, judgements=4, judged=0.5, drafts=True, hard=0.3, final=0.01),
            Stage("lengthen", 450, 7e-4, layers=24, judgements=4, judged=0.3, drafts=True, long=0.5, final=0.01),
            Stage(
                "discern",
                320,
                7e-4,
                layers=24,
                judgements=5,
                judged=0.75,
                drafts=True,
                long=0.25,
                final=0.01,
                blended=0.6,
            ),
            Stage(
                "confirm",
                160,
                7e-4,
                layers=24,
                judgements=5,
                judged=0.8,
                drafts=True,
                drafted=0.95,
                long=0.25,
                final=0.01,
                blended=0.4,
            ),
        ),
    ),
}
TALES = {
    "small": ModelSize(
        96,
        2,
        256,
        (
            Stage(
                "read",
                2000,
                4e-3,
                layers=2,
                style="small",
                operations=4,
                foreign=0.3,
                recalled=0.15,
                long_numbers=True,
                calculated=0.15,
                plain=True,
                batch=48,
                final=0.7,
            ),
            Stage(
                "settle",
                2000,
                3e-3,
                layers=2,
                style="small",
                foreign=0.4,
                recalled=0.05,
                long_numbers=True,
                calculated=0.1,
                batch=48,
                final=0.02,
            ),
            Stage(
                "practise",
                3000,
                3e-3,
                layers=2,
                style="small",
                foreign=0.4,
                long_numbers=True,
                recalled=0.03,
                calculated=0.1,
                batch=48,
                final=0.02,
            ),
            Stage(
                "hone",
                1200,
                4e-3,
                layers=2,
                style="small",
                foreign=0.4,
                long_numbers=True,
                recalled=0.02,
                calculated=0.08,
                batch=384,
                final=0.02,
                blended=0.3,
            ),
        ),
    ),
    "base": ModelSize(
        192,
        4,
        512,
        (
            Stage("read", 600, 1e-3, layers=24, style="base", operations=4, foreign=0.3, final=0.7),
            Stage(
                "copy",
                900,
                2e-3,
                layers=24,
                style="base",
                operations=4,
                foreign=0.1,
                questions=True,
                recalled=0.3,
                final=0.3,
            ),
            Stage(
                "lengthen",
                1400,
                2e-3,
                layers=24,
                style="base",
                foreign=0.1,
                questions=True,
                recalled=0.12,
                long_numbers=True,
                calculated=0.2,
                final=0.8,
            ),
            Stage(
                "strengthen",
                1200,
                2e-3,
                layers=24,
                style="base",
                foreign=0.1,
                recalled=0.06,
                long_numbers=True,
                calculated=0.15,
                final=0.05,
            ),
            Stage(
                "sharpen",
                2400,
                2e-3,
                layers=24,
                style="base",
                forms=(*tales.FORMS, "expressions", "expressions", "comparisons"),
                foreign=0.1,
                recalled=0.03,
                long_numbers=True,
                calculated=0.05,
                planned=0.35,
                plain=True,
                final=0.04,
            ),
            Stage(
                "narrow",
                1700,
                1.2e-3,
                layers=24,
                style="base",
                forms=(*tales.FORMS, "changes", "groups", "comparisons"),
                foreign=0.15,
                recalled=0.03,
                long_numbers=True,
                calculated=0.15,
                planned=0.15,
                plain=True,
                final=0.02,
            ),
            Stage(
                "broaden",
                1400,
                1.2e-3,
                layers=24,
                style="base",
                forms=(*tales.FORMS, "comparisons", "comparisons", "totals", "expressions", "groups"),
                foreign=0.15,
                recalled=0.06,
                long_numbers=True,
                calculated=0.12,
                planned=0.15,
                plain=True,
                final=0.02,
            ),
            Stage(
                "judge",
                800,
                1.2e-3,
                layers=24,
                style="base",
                forms=(*tales.FORMS, "changes", "money", "totals"),
                long=0.5,
                foreign=0.4,
                plain=True,
                judgements=3,
                judged=0.85,
                turned=0.1,
                drafts=True,
                calculated=0.05,
                final=0.02,
            ),
            Stage(
                "discern",
                1000,
                1.2e-3,
                layers=24,
                style="base",
                forms=(*tales.FORMS, "changes", "money", "totals", "comparisons", "shares"),
                long=0.5,
                foreign=0.4,
                plain=True,
                judgements=3,
                judged=0.75,
                turned=0.08,
                drafts=True,
                calculated=0.08,
                final=0.02,
                foreseen=16,
            ),
            Stage(
                "balance",
                900,
                1.2e-3,
                layers=24,
                style="base",
                forms=(*tales.FORMS, "changes", "groups", "comparisons", "expressions"),
                long=0.4,
                foreign=0.3,
                plain=True,
                judgements=3,
                judged=0.6,
                turned=0.06,
                planned=0.1,
                drafts=True,
                recalled=0.03,
                long_numbers=True,
                calculated=0.1,
                final=0.02,
                foreseen=16,
                solving=10.0,
            ),
            Stage(
                "finish",
                1813,
                2e-3,
                layers=24,
                style="base",
                forms=(*tales.FORMS, "changes", "groups", "comparisons", "totals", "expressions"),
                long=0.5,
                foreign=0.45,
                plain=True,
                judgements=4,
                judged=0.65,
                drafted=0.8,
                turned=0.06,
                planned=0.12,
                drafts=True,
                recalled=0.03,
                long_numbers=True,
                calculated=0.08,
                final=0.02,
                foreseen=16,
                solving=10.0,
                batch=384,
            ),
            Stage(
                "weigh",
                1250,
                1.5e-3,
                layers=24,
                style="base",
                forms=(*tales.FORMS, "changes", "groups", "comparisons", "totals", "money"),
                long=0.5,
                foreign=0.6,
                plain=True,
                judgements=5,
                judged=0.8,
                drafted=0.9,
                wrong=0.6,
                turned=0.06,
                planned=0.1,
                drafts=True,
                recalled=0.02,
                long_numbers=True,
                calculated=0.06,
                final=0.02,
                foreseen=16,
                solving=6.0,
                batch=384,
            ),
        ),
    ),
}
RECIPES = {"stories": SIZES, "tales": TALES}


def configure(size: ModelSize, layers: int, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama configuration; heads of 64 because every attention kernel knows them."""
    return LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        head_dim=64,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def deepen(model: LlamaForCausalLM, layers: int) -> LlamaForCausalLM:
    """A deeper model that computes the same function: the new layers on top write nothing at first.

    They are on top because a judge has to compare what is written with what it would have written itself, and that is
    only known above the layers that compute it.
    """
    old = model.config.num_hidden_layers
    deeper = LlamaForCausalLM(LlamaConfig(**{**model.config.to_dict(), "num_hidden_layers": layers}))
    deeper.load_state_dict(model.state_dict(), strict=False)
    for place in range(old, layers):
        block = deeper.model.layers[place]
        block.load_state_dict(model.model.layers[old - 1].state_dict())
        nn.init.zeros_(block.self_attn.o_proj.weight)
        nn.init.zeros_(block.mlp.down_proj.weight)
    deeper.tie_weights()
    return deeper


class Learner(nn.Module):
    """The model, and helper heads that say of every token whether it is wrong, and whether all is lost by now.

    A digit at the end of a long prompt is too weak a signal to learn comparing from; a verdict on every token is not.
    A draft in another style can only be compared with what is expected in that style, which the model is never to
    write: a further helper, behind a layer in the middle, foresees what is right in either style, and the layers above
    it can compare.
    """

    def __init__(self, model: LlamaForCausalLM, digits: Sequence[int], foreseen: int = 0, solving: float = 1.0) -> None:
        """Wrap a model; the helpers are thrown away after training."""
        super().__init__()
        self.model = model
        width = model.config.hidden_size
        self.helper = nn.Linear(width, 2)
        self.digits = list(digits)
        self.foreseen = foreseen
        self.solving = solving
        if foreseen:
            self.foresight = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, model.config.vocab_size, bias=False))
            self.foresight.load_state_dict({"1.weight": model.lm_head.weight.detach()}, strict=False)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """The training loss and its parts."""
        mask = batch.mask
        if mask is not None:  # every implementation of attention takes it as something added
            mask = torch.where(mask, 0.0, torch.finfo(torch.bfloat16).min).to(torch.bfloat16)
        told = self.model.model(
            input_ids=batch.ids,
            position_ids=batch.positions,
            attention_mask=mask,
            use_cache=False,
            output_hidden_states=self.foreseen > 0,
        )
        hidden = told.last_hidden_state
        learned = batch.targets >= 0
        loss = hidden.new_zeros((), dtype=torch.float32)
        parts = {}
        if learned.any():
            logits = self.model.lm_head(hidden[learned]).float()
            solving = functional.cross_entropy(logits, batch.targets[learned])
            loss = loss + self.solving * solving
            parts["solve"] = solving.item()
            parts["token"] = (logits.argmax(-1) == batch.targets[learned]).float().mean().item()
        if len(batch.score_rows):
            asked = hidden[batch.score_rows, batch.score_places]
            logits = self.model.lm_head(asked).float()
            judging = (
                functional.cross_entropy(logits[:, self.digits], batch.score_labels)
                + 0.1 * (logits.logsumexp(-1) - logits[:, self.digits].logsumexp(-1)).mean()
            )
            loss = loss + judging
            said, meant = logits[:, self.digits].argmax(-1) >= 7, batch.score_labels.argmax(-1) >= 7
            parts["judge"] = judging.item()
            parts["agree"] = (said == meant).float().mean().item()
        if self.foreseen and (right := batch.foreseen >= 0).any():
            logits = self.foresight(told.hidden_states[self.foreseen][right]).float()
            foresight = functional.cross_entropy(logits, batch.foreseen[right])
            loss = loss + FORESIGHT * foresight
            parts["foresight"] = foresight.item()
        for number, (name, labels, weight) in enumerate(
            (("mismatch", batch.mismatch, 10.0), ("off_course", batch.off_course, 1.0))
        ):
            known = labels >= 0
            if known.any() and (labels[known] > 0).any():
                helper = functional.binary_cross_entropy_with_logits(
                    self.helper(hidden[known])[:, number].float(),
                    labels[known].float(),
                    pos_weight=torch.tensor(weight, device=hidden.device),
                )
                loss = loss + helper
                parts[name] = helper.item()
        return loss, parts


class Muon(torch.optim.Optimizer):
    """torch's Muon with its learning rate matched to AdamW's, for all matrices of a shape at once.

    A deep and narrow model has many small matrices: one after another they would keep a GPU waiting.
    """

    MOMENTUM, DECAY, ROUNDS = 0.95, 0.02, 5
    A, B, C = 3.4445, -4.775, 2.0315
    """Coefficients of the Newton-Schulz iteration (https://kellerjordan.github.io/posts/muon/)."""

    def __init__(self, matrices: Sequence[nn.Parameter], lr: float) -> None:
        """Learn these matrices at a rate."""
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 - the base class has it
        """Improve all matrices."""
        for group in self.param_groups:
            learning = [(matrix, matrix.grad) for matrix in group["params"] if matrix.grad is not None]
            for shape in dict.fromkeys(matrix.shape for matrix, _ in learning):
                self._improve([pair for pair in learning if pair[0].shape == shape], group["lr"])

    def _improve(self, learning: Sequence[tuple[nn.Parameter, torch.Tensor]], rate: float) -> None:
        aims = []
        for matrix, slope in learning:
            mean = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
            mean.lerp_(slope, 1 - self.MOMENTUM)
            aims.append(slope.lerp(mean, self.MOMENTUM))
        ways = torch.stack(aims).bfloat16()
        is_tall = ways.shape[1] > ways.shape[2]
        ways = ways.mT if is_tall else ways
        ways = ways / ways.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
        for _ in range(self.ROUNDS):
            gram = ways @ ways.mT
            ways = torch.baddbmm(ways, torch.baddbmm(gram, gram, gram, beta=self.B, alpha=self.C), ways, beta=self.A)
        far = rate * 0.2 * max(ways.shape[1:]) ** 0.5
        for (matrix, _), way in zip(learning, ways.mT if is_tall else ways, strict=True):
            matrix.mul_(1 - rate * self.DECAY).sub_(way, alpha=far)


def optimisers(learner: Learner, stage: Stage) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers that learn, AdamW for all else."""
    rate = stage.rate
    for number, layer in enumerate(learner.model.model.layers):
        layer.requires_grad_(number >= stage.frozen)
    learner.model.model.embed_tokens.requires_grad_(stage.frozen == 0)
    learning = {id(p): p for p in learner.parameters() if p.requires_grad}
    matrices = [p for p in learner.model.model.layers.parameters() if p.ndim == 2 and id(p) in learning]
    others = [p for key, p in learning.items() if key not in {id(m) for m in matrices}]
    return [
        Muon(matrices, rate),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_at(stage: Stage, step: int) -> float:
    """Warm up, hold, and fall linearly over the last 40 % of the stage."""
    warm = min(1.0, (step + 1) / (0.1 * stage.steps))
    fall = min(1.0, (stage.steps - step) / (0.4 * stage.steps))
    return stage.rate * warm * (stage.final + (1 - stage.final) * fall)


def batches(
    encoder: Encoder, stage: Stage, first: int, seed: int, drafts: Path | None = None, workers: int = 0
) -> Iterator[Batch]:
    """Batches for a stage from step ``first``; a resumed stage sees the same data, as chunks have their own seeds."""
    chunks = range(first // SORTED_OVER, math.ceil(stage.steps / SORTED_OVER))
    sampler = _Sampler(encoder, stage, seed, drafts)
    # A fork beside a GPU's threads may hang; a server that has imported all of this forks at once.
    forking = get_context("forkserver")
    forking.set_forkserver_preload(["specreason_sgl.embedded.train"])
    told: dict[str, Any] = {"mp_context": forking, "initializer": _Sampler.tell, "initargs": (sampler,)}
    with ProcessPoolExecutor(workers, **told) if workers else nullcontext() as pool:
        for chunk, cut in zip(chunks, _ahead(pool, chunks, workers) if pool else map(sampler, chunks), strict=True):
            for number, batch in enumerate(pickle.loads(cut)):  # noqa: S301 - made by ourselves
                if first <= chunk * SORTED_OVER + number < stage.steps:
                    yield batch


@dataclass(frozen=True)
class _Sampler:
    """Makes the batches of a chunk, in this process or told to others once, before they are asked for any."""

    encoder: Encoder
    stage: Stage
    seed: int
    drafts: Path | None

    told: ClassVar[_Sampler]
    """What this process was told."""

    @cached_property
    def drafted(self) -> Drafted:
        """Read where they are needed: as a part of what is told they would keep who tells it waiting."""
        return _read_drafts(self.drafts) if self.drafts else ()

    def tell(self) -> None:
        """Have this process remember it."""
        _Sampler.told = self

    def __call__(self, chunk: int) -> bytes:
        """The batches, pickled: tensors that go from one process to another otherwise take a file handle each."""
        rng = random.Random(f"{self.stage.name}:{self.seed}:{chunk}")
        size = self.stage.batch
        samples = [_sample(self.encoder, self.stage, rng, self.drafted) for _ in range(size * SORTED_OVER)]
        # Plain sequences apart: a batch without branches needs no mask.
        samples.sort(key=lambda sample: (len(sample.roots) > 1, len(sample.ids)))
        cut = [samples[at : at + size] for at in range(0, len(samples), size)]
        rng.shuffle(cut)
        return pickle.dumps([collate(group, self.encoder.pad) for group in cut])


def _made(chunk: int) -> bytes:
    return _Sampler.told(chunk)


def _ahead(pool: ProcessPoolExecutor, chunks: Sequence[int], workers: int) -> Iterator[bytes]:
    """The chunks in order, a few of them always under way."""
    waiting = deque(pool.submit(_made, chunk) for chunk in chunks[: 2 * workers])
    for at in range(len(chunks)):
        if at + 2 * workers < len(chunks):
            waiting.append(pool.submit(_made, chunks[at + 2 * workers]))
        yield waiting.popleft().result()


def _sample(encoder: Encoder, stage: Stage, rng: random.Random, drafted: Drafted) -> Sample:
    if stage.style:
        return _told(encoder, stage, stage.style, rng, drafted)
    if rng.random() < stage.drilled:
        return encoder.drill(rng)
    if rng.random() >= stage.judged:
        return encoder.solved(_invented(stage, rng))
    if drafted and rng.random() < stage.drafted:
        seed, own = rng.choice(drafted)
        told = stories.story(seed, "train")
        while len(told.steps) > stage.longest:
            seed, own = rng.choice(drafted)
            told = stories.story(seed, "train")
        return encoder.solved(told, candidates(rng, told, stage.judgements, own))
    told = _invented(stage, rng)
    if rng.random() < stage.noised:
        return encoder.noised(told, rng)
    return encoder.solved(told, candidates(rng, told, stage.judgements))


def _told(encoder: Encoder, stage: Stage, style: Style, rng: random.Random, drafted: Drafted) -> Sample:
    if rng.random() < stage.recalled:
        return encoder.recall(rng, long_numbers=stage.long_numbers)
    if stage.calculated and rng.random() < stage.calculated:
        return encoder.calculate(rng, style)
    shortest = LONG if stage.long and rng.random() < stage.long else 1
    if stage.planned and rng.random() < stage.planned:
        return planned(encoder, tales.invent(rng, "train", stage.forms, PLANNED, shortest))
    told = tales.invent(rng, "train", stage.forms, stage.operations, shortest)
    if rng.random() < stage.turned:
        return turned(encoder, rng, told, style)
    if rng.random() >= stage.judged or not stage.judgements:
        spoken = tales.spoken(told, style, rng, stage.foreign, plain=stage.plain)
        return encoder.solved(spoken, learn_question=stage.questions)
    own: Sequence[tuple[int, str]] = ()
    if drafted and rng.random() < stage.drafted:
        seed, own = rng.choice(drafted)
        told = tales.tale(seed, "train")
    spoken = tales.spoken(told, style, rng, stage.foreign, plain=stage.plain)
    return encoder.solved(spoken, tale_candidates(rng, told, stage.judgements, drafts=own, wrong=stage.wrong))


def _invented(stage: Stage, rng: random.Random) -> stories.Story:
    families = stories.HARD if rng.random() < stage.hard else stories.FAMILIES
    shortest = stories.LONG if rng.random() < stage.long else stories.SHORTEST
    return stories.invent(rng, stage.longest, families, shortest)


class _Report:
    """What is told while a stage is trained: rows of a file, and a bar."""

    def __init__(self, folder: Path, stage: Stage, step: int) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._log = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._bar = Progress(*columns, console=console, refresh_per_second=1, disable=not console.is_terminal)
        self._task = self._bar.add_task(f"{folder.name}/{stage.name}", total=stage.steps, completed=step, figures="")
        self._stage, self._started, self._tokens = stage.name, time.monotonic(), 0
        self._mean: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._log.close()

    def tell(self, step: int, tokens: int, parts: Mapping[str, float]) -> None:
        """One step more."""
        self._tokens += tokens
        for name, value in parts.items():
            self._mean[name] = 0.95 * self._mean.get(name, value) + 0.05 * value
        if step % 25 == 0:
            rate = self._tokens / (time.monotonic() - self._started)
            row = {"stage": self._stage, "step": step, "rate": rate, **self._mean}
            self._log.write(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}) + "\n")
            self._log.flush()
            figures = " ".join(f"{k} {v:.4f}" for k, v in self._mean.items())
            self._bar.update(self._task, completed=step, figures=figures)


def _improve(
    learner: Learner, batch: Batch, tools: Sequence[torch.optim.Optimizer], rate: float, device: str
) -> dict[str, float]:
    for tool in tools:
        for group in tool.param_groups:
            group["lr"] = rate
    with torch.autocast(device, torch.bfloat16):
        loss, parts = learner(batch)
    loss.backward()
    nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    for tool in tools:
        tool.step()
        tool.zero_grad(set_to_none=True)
    return dict(parts)


def run_stage(
    learner: Learner,
    stage: Stage,
    encoder: Encoder,
    folder: Path,
    device: str,
    seed: int,
    *,
    until: float = math.inf,
    workers: int = 0,
) -> bool:
    """Train one stage, from its checkpoint if there is one, and save the result beside it.

    Args:
        learner: the model.
        stage: the stage.
        encoder: makes the samples.
        folder: of the model's checkpoints and results.
        device: where to compute.
        seed: of the samples.
        until: when to leave off, on the monotonic clock; the checkpoint says where to go on.
        workers: so many processes make the samples; this one if 0.

    Returns:
        Whether the stage was finished.
    """
    checkpoint = folder / f"{stage.name}.checkpoint.pt"
    tools = optimisers(learner, stage)
    begun = {name: value.clone() for name, value in learner.model.state_dict().items()}
    began_with = digest(begun)
    step, spent = 0, 0.0
    if checkpoint.exists():
        saved: dict[str, Any] = torch.load(checkpoint, map_location=device, weights_only=True)
        learner.load_state_dict(saved["learner"])
        for tool, state in zip(tools, saved["tools"], strict=True):
            tool.load_state_dict(state)
        step, spent = saved["step"], saved["seconds"]
    drafts = folder.parent / "drafts.jsonl" if stage.drafts else None
    started = kept = time.monotonic()

    def keep() -> None:
        state = {
            "learner": learner.state_dict(),
            "tools": [tool.state_dict() for tool in tools],
            "step": step,
            "seconds": spent + time.monotonic() - started,
        }
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    with _Report(folder, stage, step) as report:
        for batch in batches(encoder, stage, step, seed, drafts, workers):
            parts = _improve(learner, batch.to(device), tools, rate_at(stage, step), device)
            step += 1
            report.tell(step, batch.ids.numel(), parts)
            now = time.monotonic()
            if now - kept >= KEPT_EVERY_S or now >= until:
                keep()
                kept = now
            if now >= until and step < stage.steps:
                return False
    keep()
    blend(learner.model, begun, stage.blended)
    save(learner.model, folder / stage.name)
    made = {
        "stage": asdict(stage),
        "seed": seed,
        "began_with": began_with,
        "became": digest(learner.model.state_dict()),
        "seconds": round(spent + time.monotonic() - started),
        "device": device,
    }
    (folder / stage.name / "made.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return True


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """A hash of weights as they are written."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode())
        found.update(weights[name].detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return found.hexdigest()


def blend(model: LlamaForCausalLM, begun: Mapping[str, torch.Tensor], share: float) -> None:
    """Leave a model so far on its way from other weights to its own.

    Args:
        model: the model.
        begun: the weights at a share of 0.
        share: from 0 to 1.
    """
    own = model.state_dict()
    model.load_state_dict({name: torch.lerp(begun[name], own[name], share) for name in own})


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the weights as bfloat16 safetensors, leaving the model as it is."""
    model.save_pretrained(
        folder, state_dict={name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    )
    path = folder / "config.json"  # says what the model is in memory, not what was written
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "bfloat16"}, indent=2) + "\n", encoding="utf-8")


def assemble(work: Path, count: int, device: str, recipe: str) -> dict[str, float]:
    """Put the finished pair together in ``work/pair``, each model with the tokenizer, and measure it."""
    finished = {name: work / name / size.stages[-1].name for name, size in RECIPES[recipe].items()}
    for name, folder in finished.items():
        for source in (work / "tokenizer", folder):
            shutil.copytree(source, work / "pair" / name, dirs_exist_ok=True, copy_function=shutil.copyfile)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    base, small = load(finished["base"], device), load(finished["small"], device)
    measured = measure_tales if recipe == "tales" else measure
    figures = measured(base, small, Encoder(tokenizer), "test", count)
    text = json.dumps({"stories": count, **{name: round(value, 4) for name, value in figures.items()}}, indent=2)
    (work / "pair" / "figures.json").write_text(text + "\n", encoding="utf-8")
    return figures


def _read_drafts(path: Path) -> Drafted:
    drafted: dict[int, list[tuple[int, str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        drafted.setdefault(row["seed"], []).append((row["done"], row["text"]))
    return list(drafted.items())


def write_drafts(model: LlamaForCausalLM, encoder: Encoder, path: Path, count: int, seed: int) -> None:
    """Let the small model draft steps of training stories, and keep the wrong ones for the judge to learn from."""
    rng = random.Random(seed)
    told = [stories.story(number, "train") for number in range(count)]
    made = [
        (number, candidate)
        for temperature in (0.0, 0.8)
        for number, candidate in drafts(model, encoder, told, rng, each=4, temperature=temperature)
        if candidate.score != stories.RIGHT
    ]
    rows = ({"seed": number, "done": candidate.done, "text": candidate.text} for number, candidate in made)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_tale_drafts(model: LlamaForCausalLM, encoder: Encoder, path: Path, count: int, seed: int) -> None:
    """Let the small model draft steps of training tales behind chains of both styles, and keep all of them.

    Many tales teach the judge more than many drafts of each: a half is drafted greedily, the other half is sampled.
    """
    with path.open("w", encoding="utf-8") as rows:
        for first, temperature in ((0, 0.0), (1, 0.8)):
            numbers = range(first, count, 2)
            told = [tales.tale(number, "train") for number in numbers]
            for place, candidate in tale_drafts(model, encoder, told, random.Random(seed), 4, temperature):
                row = {"seed": numbers[place], "done": candidate.done, "text": candidate.text}
                rows.write(json.dumps(row) + "\n")


def widened(model: LlamaForCausalLM, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The model with a wider vocabulary: an entry that is new begins as the mean of the pieces that it was before."""
    before = model.get_input_embeddings().weight.detach()
    wider = LlamaForCausalLM(LlamaConfig(**{**model.config.to_dict(), "vocab_size": -(-len(new) // 64) * 64}))
    weights = model.state_dict()
    after = torch.zeros(wider.config.vocab_size, before.shape[1])
    after[: len(before)] = before
    split = old.backend_tokenizer.model
    for piece, number in new.backend_tokenizer.get_vocab(with_added_tokens=False).items():
        if number >= len(old):
            after[number] = before[[part.id for part in split.tokenize(piece)]].mean(0)
    wider.load_state_dict({**weights, "model.embed_tokens.weight": after, "lm_head.weight": after})
    wider.tie_weights()
    return wider


def begin(recipe: str, name: str, work: Path, earlier: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model that the first stage of a recipe begins with, and its tokenizer."""
    if recipe == "stories":
        tokenizer = build(work / "tokenizer")
        size = SIZES[name]
        return LlamaForCausalLM(configure(size, size.stages[0].layers, tokenizer)), tokenizer
    old = PreTrainedTokenizerFast.from_pretrained(earlier / name)
    model = LlamaForCausalLM.from_pretrained(earlier / name, dtype=torch.float32)
    if len(old) >= WIDER:
        return model, old
    if not (work / "tokenizer" / "tokenizer.json").exists():
        widen(earlier / name, work / "tokenizer")
    new = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    return widened(model, old, new), new


def train(
    name: str,
    work: Path,
    device: str,
    seed: int,
    *,
    recipe: str = "stories",
    last: str | None = None,
    compiled: bool = False,
    until: float = math.inf,
    workers: int = 0,
    earlier: Path = BASE.parent,
) -> bool:
    """Run a model's stages in order, up to the one named ``last``; returns whether there was time for all of them."""
    every = RECIPES[recipe][name].stages
    stages = every[: [stage.name for stage in every].index(last) + 1] if last else every
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model, tokenizer = begin(recipe, name, work, earlier)
    encoder = Encoder(tokenizer)
    finished = [(folder / stage.name / "model.safetensors").exists() for stage in stages]
    latest = max((number for number, is_there in enumerate(finished) if is_there), default=0)
    for stage in stages[latest:]:  # those before it are not needed any more
        if stage.layers != model.config.num_hidden_layers:
            model = deepen(model, stage.layers)
        if (folder / stage.name / "model.safetensors").exists():
            model = LlamaForCausalLM.from_pretrained(folder / stage.name, dtype=torch.float32)
        else:
            if stage.drafts and not (work / "drafts.jsonl").exists():
                small = load(work / "small" / RECIPES[recipe]["small"].stages[-1].name, device)
                written = write_tale_drafts if recipe == "tales" else write_drafts
                written(small, encoder, work / "drafts.jsonl", DRAFTED[recipe], seed)
            learner = Learner(model.to(device), encoder.digits, stage.foreseen, stage.solving).to(device)
            if compiled:
                if device != "cpu":
                    torch.backends.cuda.enable_cudnn_sdp(False)  # plans anew for every length of a batch
                    torch._dynamo.config.recompile_limit = 64  # noqa: SLF001 - a layer is compiled for each kind of batch
                model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
                for layer in model.model.layers:
                    layer.compile(dynamic=True)
            if not run_stage(learner, stage, encoder, folder, device, seed, until=until, workers=workers):
                return False
    return True


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", default=["small", "base"], help="which to train (default: both)")
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="tales", help="(default: tales)")
    parser.add_argument("--work", type=Path, default=Path("pair-training"), help="checkpoints and results")
    parser.add_argument(
        "--earlier",
        type=Path,
        default=BASE.parent,
        help="what `tales` goes on from (default: the shipped pair)",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", help="stop after this stage")
    parser.add_argument("--minutes", type=float, default=math.inf, help="leave off after so long, to be gone on with")
    parser.add_argument("--workers", type=int, default=0, help="processes that make samples; needed beside a GPU")
    parser.add_argument(
        "--compile", action="store_true", help="compile the layers: 1.4 times faster on a CPU, needs a C++ compiler"
    )
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    sizes = RECIPES[arguments.recipe]
    for name in arguments.models:
        stages = [stage.name for stage in sizes[name].stages] if name in sizes else []
        if not stages or arguments.stage not in (None, *stages):
            parser.error(f"{name} has the stages {', '.join(stages)}" if stages else f"there is no model {name}")
    for name in arguments.models:
        finished = train(
            name,
            arguments.work,
            arguments.device,
            arguments.seed,
            recipe=arguments.recipe,
            last=arguments.stage,
            compiled=arguments.compile,
            until=until,
            workers=arguments.workers,
            earlier=arguments.earlier,
        )
        if not finished:
            print("time is up; the same command goes on from the checkpoint")
            return
    if not arguments.stage and all((arguments.work / name / s.stages[-1].name).exists() for name, s in sizes.items()):
        for name, value in assemble(arguments.work, MEASURED, arguments.device, arguments.recipe).items():
            print(f"{name} {value:.4f}")


if __name__ == "__main__":
    main()
