"""Files that hold a score rule with the threshold that was certified for it: what `--score FILE` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError

from specreason_sgl.errors import UsageError
from specreason_sgl.files import read_text
from specreason_sgl.tables import complaint
from specreason_sgl.text.scoring import RULES, ScoreRule

ENDING = ".json"


class ScoreFile(BaseModel):
    """The contents of such a file."""

    model_config = ConfigDict(frozen=True)

    specreason_score: Literal[1] = 1
    """The version of the format."""
    score: ScoreRule
    threshold: NonNegativeFloat = Field(allow_inf_nan=False)
    promise: dict[str, Any] = Field(default_factory=dict)
    """What was certified, and on what, for whoever reads the file."""


def read_score(path: Path) -> ScoreFile:
    """The score rule and the threshold in a file.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    try:
        return ScoreFile.model_validate_json(read_text(path))
    except ValidationError as error:
        wrong = "; ".join(complaint(each) for each in error.errors()[:1])
        raise UsageError(
            f"`{path}` holds no score rule: {wrong}", hint="`specreason calibrate RUN --out FILE` makes one"
        ) from error


def rule_given(given: str) -> tuple[ScoreRule, float | None]:
    """The score rule that somebody names, by its name or by a file, and the file's threshold.

    Raises:
        UsageError: there is no such rule, or the file cannot be read.
    """
    if given.endswith(ENDING):
        read = read_score(Path(given))
        return read.score, read.threshold
    rule = next((rule for rule in RULES if rule == given), None)
    if rule is None:
        raise UsageError(
            f"there is no score `{given}`", hint="use `expected`, `greedy`, or a file of `specreason calibrate`"
        )
    return rule, None


def with_score_read(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The values of knobs as somebody gave them, with a file for the score replaced by what it holds.

    The file's threshold holds where no other one is given.

    Raises:
        UsageError: the file cannot be read.
    """
    given = dict(knobs)
    if not isinstance(score := given.get("score"), str) or not score.endswith(ENDING):
        return given
    read = read_score(Path(score))
    return {"threshold": read.threshold} | given | {"score": read.model_dump(mode="json")["score"]}
