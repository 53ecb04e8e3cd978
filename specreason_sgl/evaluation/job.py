"""A job: a dataset, a pair, modes, repeats, settings and concurrency, from a TOML file and the command line.

::

    name = "stories"
    repeats = 2
    settings = { temperature = 0.6 }
    dataset = { name = "stories", limit = 200 }
    modes = [
      { kind = "base" },
      { kind = "specreason", threshold = [3, 5, 7, 9] },   # a list makes a mode of each value
      { name = "mine", program = "mine.py" },
    ]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from specreason_sgl.engine.patience import WAIT_S
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.datasets import DatasetSpec
from specreason_sgl.files import read_toml
from specreason_sgl.settings import Settings
from specreason_sgl.tables import put, told

Kind = Literal["base", "small", "specreason", "random", "oracle", "base+decode", "specreason+decode"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PROGRAMS: Mapping[Kind, str] = {
    "base": "base_only",
    "small": "small_only",
    "specreason": "specreason",
    "random": "random_accept",
    "oracle": "oracle",
    "base+decode": "base_only",
    "specreason+decode": "specreason",
}

_MARKS = {"threshold": "t", "budget": "b", "first_n": "n"}
_KNOBS = frozenset(Settings.model_fields)


class PairSpec(BaseModel):
    """Which servers; the embedded pair if none is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair: str | None = None
    base: str | None = None
    small: str | None = None
    decode: str | None = None
    """A server of the base model with speculative decoding on, for the modes that want one."""
    wait_for_server_s: float = Field(WAIT_S, ge=0, allow_inf_nan=False)
    """How long a server that goes away is waited for before the run ends; pauses count against no solve."""
    call_limit_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """A call that stays silent for longer is sent again; as long as a solve may take if not given."""
    thinking: str | None = None
    """How the models think, or how base and small do, with a comma between; what their servers say if not given."""


class Mode(BaseModel):
    """A way to solve: a program plus parameters, under a name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.+@-]+$")
    kind: Kind | None = None
    """None for a program of one's own."""
    program: str
    """A stock program's name or a file."""
    settings: Settings
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the program."""
    plain: bool = False
    """Whether its calls are made as SGLang's own frontend makes them, as a baseline for ours."""
    of: str | None = None
    """For ``random``: the mode whose acceptance it aims at."""
    against: str | None = None
    """The mode it is compared with: the base model alone, on the same budget where there is one."""

    @property
    def decodes(self) -> bool:
        """Whether its base model is the one with speculative decoding."""
        return self.kind in {"base+decode", "specreason+decode"}

    @property
    def is_base(self) -> bool:
        """Whether it is the base model alone."""
        return self.kind == "base"


class Job(BaseModel):
    """Everything that decides what a run measures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.+@-]+$")
    dataset: DatasetSpec
    pair: PairSpec = PairSpec()
    modes: tuple[Mode, ...] = Field(min_length=1)
    repeats: int = Field(1, ge=1)
    """Solves of each problem in each mode."""
    seed: int = 0
    """Every solve has a random stream of its own, drawn from this, the problem and the repeat."""
    settings: Settings = Field(default_factory=lambda: Settings.model_validate({}))
    """Of all modes, unless one says otherwise."""
    concurrency: int | None = Field(None, ge=1)
    """Solves at the same time: 1 measures the latency of a single stream, anything else throughput. As many as the
    servers take if not given.
    """
    problem_limit_s: float = Field(1800.0, gt=0)
    """A solve that takes longer has failed."""
    flush_cache: bool = True
    """Empty the radix caches wherever nothing is in flight, so that no mode profits from another's work."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_modes(cls, row: Any) -> Any:
        if not isinstance(row, dict) or not isinstance(row.get("modes"), list | tuple):
            return row
        shared = _settings(row.get("settings") or {}, "the job")
        modes = [mode for entry in row["modes"] for mode in _expand(entry, shared)]
        return {**row, "modes": [_related(mode, modes) for mode in modes]}

    @model_validator(mode="after")
    def _check_names(self) -> Job:
        names = [mode.name for mode in self.modes]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"two modes are called {', '.join(f'`{name}`' for name in twice)}")
        for mode in self.modes:
            for reference in (mode.of, mode.against):
                if reference is not None and reference not in names:
                    raise ValueError(f"mode `{mode.name}` names `{reference}`, which is no mode of the job")
            if mode.kind == "random" and mode.of is None and "rate" not in mode.parameters:
                raise ValueError(f"mode `{mode.name}` needs a `specreason` mode, or a `rate` among its parameters")
            if mode.kind == "oracle" and self.dataset.name != "stories":
                raise ValueError(f"mode `{mode.name}` needs to know which steps are right; only `stories` tells")
        return self

    def mode(self, name: str) -> Mode:
        """The mode with this name."""
        return next(mode for mode in self.modes if mode.name == name)

    def only(self, names: Sequence[str]) -> Job:
        """The same job with some of its modes, and those they need.

        Raises:
            UsageError: one is not among them.
        """
        known = {mode.name: mode for mode in self.modes}
        wanted = set(names)
        if unknown := sorted(wanted - known.keys()):
            raise UsageError(
                f"the job has no mode {', '.join(f'`{name}`' for name in unknown)}",
                hint=f"it has {', '.join(f'`{name}`' for name in known)}",
            )
        wanted |= {known[name].of or name for name in wanted}
        kept = [
            m if m.against in wanted else m.model_copy(update={"against": None}) for m in self.modes if m.name in wanted
        ]
        return self.model_copy(update={"modes": tuple(kept)})


def read_job(path: Path, overrides: Mapping[str, Any] | None = None) -> Job:
    """A job from a file, with some of its values replaced.

    Args:
        path: a TOML file, or the name of a stock job.
        overrides: values by dotted name, such as ``settings.threshold``.

    Raises:
        UsageError: there is no such file, or something in it is not what it should be; the message names the field.
    """
    found = path if path.is_file() else stock().get(path.name.removesuffix(".toml"))
    if found is None:
        raise UsageError(
            f"there is no job `{path}`", hint=f"stock jobs are {', '.join(f'`{name}`' for name in stock())}"
        )
    row = read_toml(found)
    row.setdefault("name", found.stem)
    for name, value in (overrides or {}).items():
        put(row, name.split("."), value)
    for mode in row.get("modes", ()):
        program = isinstance(mode, dict) and mode.get("program")
        if program and (beside := found.parent / program).is_file():
            mode["program"] = str(beside)
    try:
        return Job.model_validate(row)
    except ValidationError as error:
        raise UsageError(f"`{found}`: {'; '.join(told(e) for e in error.errors())}") from error


def filled_in(stored: Any) -> Any:
    """A stored job in which all that its version did not know yet is as it is where nobody asks for anything else."""
    try:
        known = Job.model_validate(stored).model_dump(mode="json", exclude={"pair"})
    except ValidationError:
        return stored
    return _filled_in(stored, known)


def _filled_in(stored: Any, known: Any) -> Any:
    if isinstance(stored, dict) and isinstance(known, dict):
        return {**known, **{name: _filled_in(value, known.get(name)) for name, value in stored.items()}}
    if isinstance(stored, list) and isinstance(known, list) and len(stored) == len(known):
        return [_filled_in(*each) for each in zip(stored, known, strict=True)]
    return stored


def stock() -> dict[str, Path]:
    """The jobs that come with the package, by name."""
    package = Path(__file__).parents[1]
    folder = next((p for p in (package / "stock" / "eval", package.parent / "eval") if p.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}


def _expand(entry: Any, shared: Settings) -> list[dict[str, Any]]:
    """The modes that one entry of the file stands for, their knobs gathered into settings."""
    if isinstance(entry, Mode):
        entry = entry.model_dump()
    if not isinstance(entry, dict):
        raise ValueError(f"a mode is a table, not `{entry!r}`")  # noqa: TRY004 - pydantic wants it
    kind = entry.get("kind")
    if kind is None and entry.get("program") is None:
        raise ValueError("a mode needs a `kind` or a `program`")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"there is no kind of mode `{kind}`; there are {', '.join(KINDS)}")
    knobs = {name: value for name, value in entry.items() if name in _KNOBS}
    rest = {name: value for name, value in entry.items() if name not in _KNOBS}
    base = {**shared.model_dump(), **(rest.pop("settings", None) or {})}
    program = rest.get("program") or PROGRAMS[cast("Kind", kind)]
    name = rest.pop("name", None) or kind or Path(program).stem
    swept = [knob for knob, value in knobs.items() if isinstance(value, list)]
    modes = []
    for values in product(*(knobs[knob] for knob in swept)):
        chosen = dict(zip(swept, values, strict=True))
        mark = "".join(f"-{_MARKS.get(knob, knob)}{value}" for knob, value in chosen.items())
        settings = _settings({**base, **knobs, **chosen}, f"mode `{name}`")
        modes.append({**rest, "name": name + mark, "program": program, "settings": settings.model_dump()})
    return modes


def _settings(values: Any, owner: str) -> Settings:
    if isinstance(values, Settings):
        return values
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{owner}: {'; '.join(told(e) for e in error.errors())}") from error


def _related(mode: dict[str, Any], modes: list[dict[str, Any]]) -> dict[str, Any]:
    """The mode with what it refers to filled in."""
    kind, settings = mode.get("kind"), mode["settings"]

    def closest(wanted: Kind, *knobs: str) -> str | None:
        some = [m for m in modes if m.get("kind") == wanted and m is not mode]
        alike = [m for m in some if all(m["settings"][knob] == settings[knob] for knob in knobs)]
        return next((m["name"] for m in (*alike, *some)), None)

    if kind == "random" and mode.get("of") is None and "rate" not in mode.get("parameters", {}):
        mode = {**mode, "of": closest("specreason", "budget", "threshold")}
    if kind == "random" and mode.get("of") is not None:
        settings = next((m["settings"] for m in modes if m["name"] == mode["of"]), settings)
        mode = {**mode, "settings": settings}
    if mode.get("against") is None and kind != "base":
        mode = {**mode, "against": closest("base", "budget")}
    return mode
