"""The settings of a solve that all programs share: limits and sampling."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from specreason_sgl.text.prompts import DELIMITER


class Settings(BaseModel):
    """Limits and sampling; where the paper has a value, it is the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int = Field(8192, ge=1)
    """The thinking budget, in tokens of the model that wrote them."""
    max_step_tokens: int = Field(512, ge=1)
    """The most tokens of a step; a longer one is cut there, and the rest becomes the next step."""
    delimiter: str = Field(DELIMITER, min_length=1)
    """What ends a step."""
    answer_tokens: int = Field(512, ge=1)
    """The most tokens of the answer phase."""
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    instruction: str | None = None
    """The text of the user's turn, with ``{problem}`` where the question belongs; the pair's own text if not given."""
    judge: str | None = Field(None, min_length=1)
    """The question to the judge about the last step; the pair's own if not given. Thresholds depend on it."""
    seed: int | None = None
    """The sampling seed; servers use it only if they run with deterministic inference."""

    @field_validator("instruction")
    @classmethod
    def _has_a_place_for_the_problem(cls, words: str | None) -> str | None:
        if words is not None and "{problem}" not in words:
            raise ValueError("it needs `{problem}` where the question belongs")
        return words
