"""What training does to the weights between its steps."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from specreason_sgl.embedded.train import blend, deepen

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
