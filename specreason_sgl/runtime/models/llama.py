"""SGLang's own Llama, which the embedded pair is."""

from sglang.srt.models.llama import EntryClass

__all__ = ["EntryClass"]
