"""SGLang's Llama with a shorter way through its layers, for one process without a GPU.

For models as small as the embedded pair, a third of the time of a token is what SGLang does around the operations: it
provides for many kinds of hardware, of quantization and of parallel processes. Here a layer is its operations alone.
The weights, their loading and all else are SGLang's own, and so is the way through layers that have more to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.linear import LinearBase
from sglang.srt.layers.radix_attention import get_attn_backend
from sglang.srt.layers.rotary_embedding import RotaryEmbedding
from sglang.srt.model_executor.forward_batch_info import ForwardBatch
from sglang.srt.models.llama import LlamaDecoderLayer, LlamaModel
from sglang.srt.models.llama import LlamaForCausalLM as SGLangLlamaForCausalLM
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, silu

__all__ = ["EntryClass"]

PACKED_FOR_TOKENS = 8
"""The size of batch that packed weights suit best; others use them too."""


class PlainLlamaModel(LlamaModel):  # type: ignore[misc]
    """The layers of a Llama."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """Layers as SGLang makes them."""
        super().__init__(*given, **named)
        self.products: list[_Products] = []
        """Of every layer, from the first forward pass on; to be emptied when the weights change."""

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        forward_batch: ForwardBatch,
        input_embeds: Tensor | None = None,
        pp_proxy_tensors: Any = None,
    ) -> Any:
        """The hidden states of new tokens.

        Args:
            input_ids: ``[tokens]``.
            positions: their places in their sequences, ``[tokens]``.
            forward_batch: the batch they belong to.
            input_embeds: what stands for the tokens instead, ``[tokens, width]``.
            pp_proxy_tensors: hidden states from another process.

        Returns:
            ``[tokens, width]``, normalized.
        """
        if input_embeds is not None or pp_proxy_tensors is not None or not self._is_plain():
            return super().forward(input_ids, positions, forward_batch, input_embeds, pp_proxy_tensors)
        x = embedding(input_ids, self.embed_tokens.weight)
        turns = self.layers[0].self_attn.rotary_emb.cos_sin_cache.index_select(0, positions).to(x.dtype)
        cos, sin = turns.unsqueeze(1).chunk(2, dim=-1)
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        attend = get_attn_backend().forward
        self.products = self.products or [_Products(layer) for layer in self.layers]
        for layer, products in zip(self.layers, self.products, strict=True):
            own = layer.self_attn
            heads = products.qkv(_normalized(x, layer.input_layernorm)).view(len(x), -1, own.head_dim)
            values = own.num_heads + own.num_kv_heads
            straight = heads[:, :values]
            turned = straight * cos
            turned += straight.roll(own.head_dim // 2, dims=-1) * sin
            q, k = turned[:, : own.num_heads].flatten(1), turned[:, own.num_heads :]
            x = x + products.o(attend(q, k, heads[:, values:], own.attn, forward_batch))
            gate, up = products.gate_up(_normalized(x, layer.post_attention_layernorm)).chunk(2, -1)
            x = x + products.down(silu(gate).mul_(up))
        return _normalized(x, self.norm)

    def _is_plain(self) -> bool:
        """Whether nothing is wanted of the layers but their operations."""
        own = self.layers[self.start_layer].self_attn
        rotary = own.rotary_emb
        return (
            own.qkv_proj.quant_config is None
            and own.num_heads == own.total_num_heads
            and (self.start_layer, self.end_layer) == (0, self.config.num_hidden_layers)
            and not self.layers_to_capture
            and type(rotary).forward_native is RotaryEmbedding.forward_native
            and rotary.is_neox_style
            and rotary.rotary_dim == own.head_dim
        )


class _Products:
    """The four matrix products of a layer."""

    def __init__(self, layer: LlamaDecoderLayer) -> None:
        self.qkv = _product(layer.self_attn.qkv_proj)
        self.o = _product(layer.self_attn.o_proj)
        self.gate_up = _product(layer.mlp.gate_up_proj)
        self.down = _product(layer.mlp.down_proj)


def _product(layer: LinearBase) -> Callable[[Tensor], Tensor]:
    """What a linear layer does, with weights packed where oneDNN can: otherwise it packs them for every product."""
    weight, bias = layer.weight.detach(), layer.bias
    operations = torch.ops.mkldnn
    if weight.dtype != torch.bfloat16 or not operations._is_mkldnn_bf16_supported():  # noqa: SLF001 - it has no other name
        return lambda x: linear(x, weight, bias)
    packed = operations._reorder_linear_weight(weight, PACKED_FOR_TOKENS)  # noqa: SLF001 - as above
    return lambda x: operations._linear_pointwise(x, packed, bias, "none", [], "")  # noqa: SLF001 - as above


def _normalized(x: Tensor, norm: RMSNorm) -> Tensor:
    return rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


class LlamaForCausalLM(SGLangLlamaForCausalLM):  # type: ignore[misc]
    """A Llama that SGLang serves under the name in the models' configuration."""

    def _init_model(self, *given: Any, **named: Any) -> PlainLlamaModel:
        return PlainLlamaModel(*given, **named)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Any:
        """Load weights, at the start or instead of others."""
        self.model.products.clear()
        return super().load_weights(weights)


EntryClass = [LlamaForCausalLM]
