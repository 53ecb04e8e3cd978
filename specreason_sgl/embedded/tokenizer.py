"""The embedded pair's tokenizer: byte-level BPE with single digits and ChatML turns, one for both models."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from specreason_sgl.embedded import tales
from specreason_sgl.embedded.stories import story
from specreason_sgl.text.prompts import EMBEDDED, THINK_CLOSE, THINK_OPEN, VERDICT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 640
WIDER = 1536
"""Entries after the vocabulary is widened for tales."""
READ = 6000
"""Tales whose words the wider vocabulary is learned from."""
HEARD = 10
"""So often a piece has to be in them for something to be learned of it."""
ASKED = (EMBEDDED.user_content("user"), "assistant", "user", EMBEDDED.judge, VERDICT)
"""What stands around the problems in every conversation."""
PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# A run of newlines is one piece, so the delimiter is one token whatever stands around it and a prefix that
# ends there is tokenised alike with and without what follows; digits and punctuation stand alone.
PIECES = r"\n+|\d| ?\p{L}+| ?[^\s\p{L}\d]|[^\S\n]+"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


def build(folder: Path) -> PreTrainedTokenizerFast:
    """Learn the merges from stories, save the tokenizer into ``folder`` and return it."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=[PAD, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [*ASKED] * 50
    for seed in range(4000):
        told = story(seed, "train")
        lines += [told.question, *told.steps, told.answer_text, "The story says:", "\n\n"]
    tokenizer.train_from_iterator(lines, trainer)
    # Not "special": these stay in the decoded text, where the programs look for them.
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in (THINK_OPEN, THINK_CLOSE)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=TURN_END,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    return wrapped


def widen(source: Path, folder: Path, entries: int = WIDER, read: int = READ) -> PreTrainedTokenizerFast:
    """Append merges learned from tales to a tokenizer, save it into ``folder`` and return it.

    All that was there keeps its number, so a model can go on with what it knows.

    Args:
        source: the folder of the tokenizer.
        folder: where the wider one goes.
        entries: so many it has then.
        read: from so many tales they are learned.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary: dict[str, int] = made["model"]["vocab"]
    # The thinking's marks are numbered last and stand beside the vocabulary; inside it they keep their numbers.
    vocabulary |= {token["content"]: token["id"] for token in made["added_tokens"]}
    by_number = {number: piece for piece, number in vocabulary.items()}
    split = tokenizer.backend_tokenizer.pre_tokenizer
    counted = Counter(word for text in _tale_texts(read) for word, _ in split.pre_tokenize_str(text))
    model = tokenizer.backend_tokenizer.model
    words = {tuple(by_number[piece.id] for piece in model.tokenize(word)): count for word, count in counted.items()}
    for left, right in merges(words, entries - len(vocabulary), taken=vocabulary):
        vocabulary[left + right] = len(vocabulary)
        made["model"]["merges"].append([left, right])
    made["model"]["merges"] = heard(made, [*ASKED * HEARD, *_tale_texts(read)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return PreTrainedTokenizerFast.from_pretrained(folder)


def heard(made: Mapping[str, Any], texts: Sequence[str]) -> list[list[str]]:
    """The merges of a tokenizer without those whose piece is hardly in any text and in no other piece.

    Of such a piece nothing is learned, so that a model cannot even copy it: a word that the tokenizer has met in
    other training, and that is told only in dev or test now, is better spelled in pieces which are in other words.

    Args:
        made: The tokenizer, as it is written.
        texts: All that is trained on, or enough of it.
    """
    from tokenizers import Tokenizer

    told = Counter(piece for read in Tokenizer.from_str(json.dumps(made)).encode_batch(texts) for piece in read.tokens)
    kept: list[list[str]] = made["model"]["merges"]
    while True:
        parts = {part for merge in kept for part in merge}
        fewer = [merge for merge in kept if told["".join(merge)] >= HEARD or "".join(merge) in parts]
        if len(fewer) == len(kept):
            return kept
        kept = fewer


def _tale_texts(count: int) -> Iterable[str]:
    for seed in range(count):
        told = tales.tale(seed, "train")
        yield told.question
        for style in tales.STYLES:
            yield from tales.said(told, style, Random(seed))


def merges(words: dict[tuple[str, ...], int], count: int, taken: Iterable[str] = ()) -> list[tuple[str, str]]:
    """The most frequent pairs of pieces, each merged before the next is sought.

    Args:
        words: how often each word occurs, in pieces.
        count: so many pairs.
        taken: pieces that there are already; no pair makes one of them.
    """
    known, found = set(taken), list[tuple[str, str]]()
    spelled = [list(word) for word in words]
    often = list(words.values())
    pairs: Counter[tuple[str, str]] = Counter()
    where: dict[tuple[str, str], set[int]] = {}
    for place, word in enumerate(spelled):
        for pair in itertools.pairwise(word):
            pairs[pair] += often[place]
            where.setdefault(pair, set()).add(place)
    while pairs and len(found) < count:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        if pairs[best] <= 0:
            break
        if best[0] + best[1] in known:
            del pairs[best]
            continue
        found.append(best)
        known.add(best[0] + best[1])
        for place in sorted(where.pop(best)):
            for pair in zip(spelled[place], spelled[place][1:], strict=False):
                pairs[pair] -= often[place]
            spelled[place] = _merged(spelled[place], best)
            for pair in zip(spelled[place], spelled[place][1:], strict=False):
                pairs[pair] += often[place]
                where.setdefault(pair, set()).add(place)
        pairs.pop(best, None)
    return found


def _merged(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
