"""Training samples: a solved story as the trunk of a tree, with the judge's turns as branches.

The judge is asked after a step in a copy of the conversation. In training the copy is a branch of the same
sequence: its tokens see the trunk up to the step and themselves, never each other's branches, and their
positions go on from the trunk's. One story thus gives several judgements for little more than their own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from specreason_sgl.embedded import stories
from specreason_sgl.embedded.stories import RIGHT, Story
from specreason_sgl.embedded.tales import STYLES, Spoken, Style, Tale, corrupt, grade
from specreason_sgl.embedded.tales.arithmetic import LONGEST, calculation
from specreason_sgl.embedded.tales.facts import compute
from specreason_sgl.embedded.tales.styles import WRITTEN, word, wordings
from specreason_sgl.embedded.tales.words import person, thing
from specreason_sgl.embedded.tokenizer import PAD, TURN_END, TURN_START
from specreason_sgl.text.prompts import DELIMITER, EMBEDDED, JUDGE_PREFILL, THINK_CLOSE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

JUDGE_TURN = f"{TURN_END}\n{TURN_START}user\n{EMBEDDED.judge}{TURN_END}\n{TURN_START}assistant\n{JUDGE_PREFILL}"
SHARPNESS = 2.0
"""How fast a digit's label falls off around the deserved score."""

NOISED = 0.8
"""The share of steps with a wrong digit in noised solutions."""


@dataclass(frozen=True)
class Candidate:
    """A step somebody proposes after ``done`` right ones."""

    done: int
    text: str
    score: int
    meant: str = ""
    """The right wording that is nearest to the text; the solution's own if empty."""


@dataclass
class Sample:
    """One tree as flat lists, a token an entry."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    """0 for the trunk, 1, 2, ... for the branches."""
    roots: list[int] = field(default_factory=lambda: [0])
    """For each branch, how many trunk tokens it sees."""
    targets: list[int] = field(default_factory=list)
    """The token to predict here, or -100."""
    foreseen: list[int] = field(default_factory=list)
    """The token that is right here in a step of either style, whoever writes it, or -100."""
    off_course: list[int] = field(default_factory=list)
    """In candidates: whether the text so far differs from the right step. In the judge's turn: whether the candidate
    was anything but right. -100 elsewhere."""
    mismatch: list[int] = field(default_factory=list)
    """Whether this very token is the first that differs; 0 in the right solution, -100 behind a difference."""
    scores: list[tuple[int, int]] = field(default_factory=list)
    """Where a digit is predicted, and the score it should be."""

    def append(
        self,
        ids: Sequence[int],
        *,
        learn: bool,
        branch: int = 0,
        foresee: bool | Sequence[int] = False,
        off_course: Sequence[int] | None = None,
        mismatch: Sequence[int] | None = None,
    ) -> None:
        """Add tokens; with ``learn`` each is also the target of the one before it, with ``foresee`` foreseen there."""
        own = [p for p, b in zip(self.positions, self.branch, strict=True) if b == branch]
        start = own[-1] + 1 if own else (self.roots[branch] if branch else 0)
        if learn and self.ids:
            self.targets[-1] = ids[0]
        self.targets += [*ids[1:], -100] if learn else [-100] * len(ids)
        if foresee is True and self.ids:
            self.foreseen[-1] = ids[0]
        self.foreseen += [*ids[1:], -100] if foresee is True else foresee or [-100] * len(ids)
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.branch += [branch] * len(ids)
        self.off_course += off_course or [-100] * len(ids)
        self.mismatch += mismatch or [0 if learn else -100] * len(ids)


def first_difference(differs: Sequence[int]) -> list[int]:
    """0 up to the first token that differs, 1 there, and -100 behind it, where nothing is right or wrong any more."""
    first = list(differs).index(1) if 1 in differs else len(differs)
    return [0] * first + [1] * (first < len(differs)) + [-100] * (len(differs) - first - 1)


class Encoder:
    """Turns stories into samples with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Keep the pieces that never change."""
        self._tokenizer = tokenizer
        self.delimiter = self.encode(DELIMITER)
        self._judge_turn = self.encode(JUDGE_TURN)
        self._end = self.encode(f"\n{THINK_CLOSE}{DELIMITER}")
        self.pad = self.encode(PAD)[0]
        self.digits = [self.encode(str(digit))[0] for digit in range(10)]

    def encode(self, text: str) -> list[int]:
        """Token ids, with control tokens recognised and nothing added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        return str(self._tokenizer.decode(ids))

    def prefix(self, question: str) -> str:
        """The rendered conversation up to the first step."""
        messages = [{"role": "user", "content": EMBEDDED.user_content(question)}]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def solved(
        self, told: Story | Spoken, candidates: Sequence[Candidate] = (), *, learn_question: bool = False
    ) -> Sample:
        """A story or tale with its solution and a judgement of each candidate; steps of another style are only read.

        Args:
            told: The story or tale.
            candidates: Steps to judge.
            learn_question: Whether the question is to be predicted too: names and things come again in it, which is
                where copying is learned first.
        """
        own = told.own if isinstance(told, Spoken) else (True,) * len(told.steps)
        sample = Sample()
        sample.append(self.encode(self.prefix(told.question)), learn=learn_question)
        steps = [self.encode(step) for step in told.steps]
        ends = [len(sample.ids)]
        for step, mine in zip(steps[:-1], own, strict=False):
            sample.append([*step, *self.delimiter], learn=mine, foresee=True)
            ends.append(len(sample.ids))
        sample.append([*steps[-1], *self._end], learn=own[-1], foresee=True)
        sample.append(self.encode(told.answer_text + TURN_END), learn=True)
        for number, candidate in enumerate(candidates, start=1):
            right = self.encode(candidate.meant) if candidate.meant else steps[candidate.done]
            told_so = candidate.score == RIGHT and (not candidate.meant or candidate.text == told.steps[candidate.done])
            self._judge(sample, number, candidate, right, ends, in_trunk=told_so)
        return sample

    def _judge(
        self, sample: Sample, number: int, candidate: Candidate, right: list[int], ends: list[int], *, in_trunk: bool
    ) -> None:
        if in_trunk and candidate.done + 1 < len(ends):
            sample.roots.append(ends[candidate.done + 1])  # the trunk already holds it
        else:
            sample.roots.append(ends[candidate.done])
            ids = [*self.encode(candidate.text), *self.delimiter]
            wanted = [*right, *self.delimiter]
            same = [0 if ids[: i + 1] == wanted[: i + 1] else 1 for i in range(len(ids))]
            ahead = [-100 if differs else token for differs, token in zip(same[:-1], wanted[1:], strict=False)]
            foreseen = [*ahead, *[-100] * (len(ids) - len(ahead))]
            mismatch = first_difference(same)
            sample.append(ids, learn=False, branch=number, foresee=foreseen, off_course=same, mismatch=mismatch)
        # Every token of the judge's turn has to know the verdict, so that the digit at its end is not a lone signal.
        verdict = [int(candidate.score != RIGHT)] * len(self._judge_turn)
        sample.append(self._judge_turn, learn=False, branch=number, off_course=verdict)
        sample.scores.append((len(sample.ids) - 1, candidate.score))

    def noised(self, told: Story, rng: Random) -> Sample:
        """A solution with a wrong digit in most steps, to be found: what comes before a judgement of whole steps.

        The digit is never in the step's result, so the steps behind it stay right.
        """
        sample = Sample()
        sample.append(self.encode(self.prefix(told.question)), learn=False)
        for step in told.steps:
            inner, so, result = step.rpartition(", ")
            wrong = stories.flip_digit(rng, inner) + so + result if any(map(str.isdigit, inner)) else step
            right = [*self.encode(step), *self.delimiter]
            shown = [*self.encode(wrong), *self.delimiter] if rng.random() < NOISED else right
            differs = [int(a != b) for a, b in zip(shown, right, strict=True)]
            sample.append(shown, learn=False, mismatch=first_difference(differs))
        return sample

    def drill(self, rng: Random, claims: int = 24) -> Sample:
        """Short claims, each followed at once by its verdict: how the judge learns to compare."""
        sample = Sample()
        sample.append(self.encode(TURN_START), learn=False)
        for _ in range(claims):
            text, right = claim(rng)
            sample.append(self.encode(f"{text} "), learn=False)
            sample.scores.append((len(sample.ids) - 1, stories.RIGHT if right else 1))
            sample.append([self.digits[stories.RIGHT if right else 1], *self.encode("\n")], learn=False)
        return sample

    def recall(self, rng: Random, most: int = 10, *, long_numbers: bool = False) -> Sample:
        """Who has how many of what, said twice.

        Copying names and things that were never seen before is learned from such lists long before it would be learned
        from problems.

        Args:
            rng: Decides what the list holds.
            most: How many lines it has at most.
            long_numbers: Whether numbers have up to four digits, few as often as many.
        """
        lines: list[str] = []
        people: list[str] = []
        things: list[str] = []
        for _ in range(rng.randint(4, most)):
            people.append(person(rng, "train", people).name)
            things.append(thing(rng, "train", things))
            largest = 10 ** rng.randint(1, LONGEST) - 1 if long_numbers else stories.MOST
            lines.append(f"{people[-1]} has {rng.randint(0, largest)} {things[-1]}.\n")
        again = rng.sample(lines, len(lines)) if rng.random() < 0.5 else lines
        sample = Sample()
        sample.append(self.encode(TURN_START + "".join(lines)), learn=False)
        sample.append(self.encode("".join(again)), learn=True)
        return sample

    def calculate(self, rng: Random, style: Style, most: int = 8) -> Sample:
        """Calculations one after another, written out as a style does: all digits to learn from and few words."""
        sample = Sample()
        sample.append(self.encode(TURN_START), learn=False)
        for _ in range(rng.randint(4, most)):
            left, operation, right = calculation(rng)
            asked = f"{left}{operation}{right}"
            written = WRITTEN[style](left, operation, right, compute(left, operation, right))
            sample.append(self.encode(asked), learn=False)
            sample.append(self.encode(written.removeprefix(asked) + "\n"), learn=True)
        return sample


def claim(rng: Random) -> tuple[str, bool]:
    """A piece of arithmetic and whether it holds."""
    a, b = rng.randint(1, stories.MOST), rng.randint(1, stories.MOST)
    kind = rng.random()
    if kind < 0.4:
        x, y = rng.randint(0, 9), rng.randint(0, 9)
        text = rng.choice((f"{x}+{y}={x + y}", f"{max(x, y)}-{min(x, y)}={abs(x - y)}", f"{x}x{y}={x * y}"))
    elif kind < 0.7 and a + b <= stories.MOST:
        text = stories.add(a, b)
    elif kind < 0.9:
        text = stories.subtract(max(a, b), min(a, b))
    else:
        k = rng.randint(2, 9)
        text = stories.multiply(k, rng.randint(1, stories.MOST // k))
    if rng.random() < 0.5:
        return text, True
    return stories.flip_digit(rng, text), False


def candidates(rng: Random, told: Story, count: int, drafts: Sequence[tuple[int, str]] = ()) -> list[Candidate]:
    """Steps to judge: half right, the others a small model's wrong drafts or, where there is none, corrupted.

    Args:
        rng: Decides where and what.
        told: The story.
        count: How many at most, each after another number of steps.
        drafts: Wrong drafts: after how many steps, and the text. Those places come first.
    """
    missed = sorted({done for done, _ in drafts})
    free = [done for done in range(len(told.steps)) if done not in missed]
    places = [*rng.sample(missed, len(missed)), *rng.sample(free, len(free))][:count]
    chosen = []
    for done in places:
        drafted = [text for at, text in drafts if at == done]
        wrong = rng.choice(drafted) if drafted else stories.corrupt(rng, told, done)
        text = told.steps[done] if rng.random() < 0.5 else wrong
        chosen.append(Candidate(done, text, stories.grade_step(told, done, text)))
    return chosen


def tale_candidates(
    rng: Random,
    told: Tale,
    count: int,
    style: Style = "small",
    drafts: Sequence[tuple[int, str]] = (),
    wrong: float = 0.5,
) -> list[Candidate]:
    """Steps of a tale to judge, right ones and wrong ones, of either many as they were drafted.

    Args:
        rng: Decides where and what.
        told: The tale.
        count: How many at most, each after another number of steps.
        style: The style of most of those that were not drafted.
        drafts: Drafts: after how many steps, and the text. Places with wrong ones come first.
        wrong: The share of wrong ones.
    """
    good: dict[int, list[str]] = {}
    bad: dict[int, list[str]] = {}
    for done, text in drafts:
        (good if grade(told, range(done), text) == RIGHT else bad).setdefault(done, []).append(text)
    free = [done for done in range(len(told.steps)) if done not in bad]
    places = [*rng.sample(sorted(bad), len(bad)), *rng.sample(free, len(free))][:count]
    chosen = []
    for done in places:
        own = style if rng.random() < 0.8 else rng.choice(STYLES)
        as_drafted = rng.random() < 0.7
        if rng.random() >= wrong:
            drafted = good.get(done, []) if as_drafted else []
            text = rng.choice(drafted) if drafted else word(told.steps[done], own, rng)
        else:
            drafted = bad.get(done, []) if as_drafted else []
            text = rng.choice(drafted) if drafted else corrupt(rng, told, frozenset(range(done)), done, own)
        score = grade(told, range(done), text)
        chosen.append(Candidate(done, text, score, text if score == RIGHT else nearest(told, done, text)))
    return chosen


def nearest(told: Tale, done: int, text: str) -> str:
    """The right wording of a step that begins most like a text."""
    every = [each for style in STYLES for each in wordings(told.steps[done], style)]
    return max(every, key=lambda each: _alike(each, text))


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def soft_label(score: int) -> list[float]:
    """A distribution over the ten digits, peaked at the deserved score."""
    weights = [2.718281828 ** (-SHARPNESS * abs(digit - score)) for digit in range(10)]
    return [weight / sum(weights) for weight in weights]


@dataclass(frozen=True)
class Batch:
    """Samples padded to one length."""

    ids: torch.Tensor
    positions: torch.Tensor
    branch: torch.Tensor
    """Of every token; 0 is the trunk."""
    roots: torch.Tensor
    """How many of the trunk's tokens a token sees, however late it comes."""
    plain: bool
    """Whether every sample is a plain sequence, of which no mask has to be made."""
    targets: torch.Tensor
    foreseen: torch.Tensor
    off_course: torch.Tensor
    mismatch: torch.Tensor
    score_rows: torch.Tensor
    score_places: torch.Tensor
    score_labels: torch.Tensor

    @property
    def mask(self) -> torch.Tensor | None:
        """Who sees whom: bool, (batch, 1, query, key), made where the batch is; None where all are plain sequences."""
        if self.plain:
            return None
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        on_trunk = (self.branch == 0)[:, None, :] & (places < self.roots[:, :, None])
        same = self.branch[:, :, None] == self.branch[:, None, :]
        return ((places[:, None] >= places) & (on_trunk | same))[:, None]

    def to(self, device: str) -> Batch:
        """The same batch on another device; a GPU gets it while it computes."""
        moved: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor) and device != "cpu":
                moved[name] = value.pin_memory().to(device, non_blocking=True)
        return replace(self, **moved)


def collate(samples: Sequence[Sample], pad: int, multiple: int = 16) -> Batch:
    """Pad samples at the end."""
    length = -(-max(len(s.ids) for s in samples) // multiple) * multiple

    def padded(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([getattr(s, name) + [fill] * (length - len(s.ids)) for s in samples])

    roots = [[s.roots[b] if b else length for b in s.branch] + [length] * (length - len(s.ids)) for s in samples]
    scores = [(row, place, soft_label(score)) for row, s in enumerate(samples) for place, score in s.scores]
    return Batch(
        padded("ids", pad),
        padded("positions", 0),
        padded("branch", 0),
        torch.tensor(roots),
        all(len(s.roots) == 1 for s in samples),
        padded("targets", -100),
        padded("foreseen", -100),
        padded("off_course", -100),
        padded("mismatch", -100),
        torch.tensor([row for row, _, _ in scores], dtype=torch.long),
        torch.tensor([place for _, place, _ in scores], dtype=torch.long),
        torch.tensor([label for _, _, label in scores]).reshape(-1, 10),
    )
