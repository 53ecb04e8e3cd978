"""What can be chosen for a solve."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from specreason_sgl.text.prompts import DELIMITER
from specreason_sgl.text.scoring import ScoreRule


class Settings(BaseModel):
    """The knobs of the method and of sampling; the defaults are the paper's where it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(7.0, ge=0, allow_inf_nan=False)
    """The utility score at which a draft is accepted; 0 accepts all, anything above 9 none."""
    score: ScoreRule = "expected"
    """Which figure of the digit distribution is compared with the threshold."""
    first_n: int = Field(0, ge=0)
    """So many first steps are written by the base model without a draft."""
    budget: int = Field(8192, ge=1)
    """The thinking budget, in tokens of the model that wrote them."""
    max_step_tokens: int = Field(512, ge=1)
    """The longest step; a longer one is cut there and goes on as the next."""
    min_step_tokens: int = Field(0, ge=0)
    """A draft shorter than this goes on into the next step before it is judged, so that judging it is worth while."""
    delimiter: str = Field(DELIMITER, min_length=1)
    """What ends a step."""
    back_off: bool = False
    """Whether drafting pauses where it does not pay; decisions then depend on measured times."""
    answer_tokens: int = Field(512, ge=1)
    """The limit of the answer phase."""
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    seed: int | None = None
    """Sampling seed; honoured by servers that run with deterministic inference."""
