"""The settings of a solve that all programs share: limits and sampling."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from specreason_sgl.text.prompts import DELIMITER, whole

Text = Annotated[str, Field(min_length=1), AfterValidator(whole)]


class Settings(BaseModel):
    """Limits and sampling; where the paper has a value, it is the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int = Field(8192, ge=0)
    """The thinking budget, in tokens of the model that wrote them; with 0 the answer is written at once."""
    max_step_tokens: int = Field(512, ge=1)
    """The most tokens of a step; a longer one is cut there, and the rest becomes the next step."""
    delimiter: str = Field(DELIMITER, min_length=1)
    """What ends a step."""
    answer_tokens: int = Field(512, ge=1)
    """The most tokens of the answer phase."""
    stop: tuple[Text, ...] = Field((), exclude_if=lambda stops: not stops)
    """Texts that end the answer phase; they are not part of the answer."""
    json_schema: Text | None = Field(None, exclude_if=lambda schema: schema is None)
    """A JSON schema, as text, that the answer has to fit; the model is held to it by its server."""
    regex: Text | None = Field(None, exclude_if=lambda pattern: pattern is None)
    """A regular expression that the whole answer has to match, in place of a JSON schema."""
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

    @field_validator("stop", mode="before")
    @classmethod
    def _one_text_is_a_stop(cls, stop: Any) -> Any:
        return (stop,) if isinstance(stop, str) else stop

    @field_validator("json_schema")
    @classmethod
    def _is_an_object(cls, schema: str | None) -> str | None:
        try:
            is_object = schema is None or isinstance(json.loads(schema), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise ValueError("it has to be the text of a JSON object")
        return schema

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None, given: ValidationInfo) -> str | None:
        if pattern is not None and given.data.get("json_schema") is not None:
            raise ValueError("an answer has a JSON schema or a regular expression, not both")
        try:
            re.compile(pattern or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"it is no regular expression: {error}") from error
        return pattern
