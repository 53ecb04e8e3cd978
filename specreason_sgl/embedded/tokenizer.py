"""The embedded pair's tokenizer: byte-level BPE with single digits and ChatML turns, one for both models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from specreason_sgl.embedded.stories import story
from specreason_sgl.text.prompts import EMBEDDED, THINK_CLOSE, THINK_OPEN, VERDICT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 640
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
    lines = [EMBEDDED.user_content("user"), "assistant", "user", EMBEDDED.judge, VERDICT] * 50
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
