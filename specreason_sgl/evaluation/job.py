"""A job: a dataset, a pair, modes, repeats, settings and concurrency, from a TOML file and the command line.

::

    name = "stories"
    repeats = 2
    settings = { temperature = 0.6 }
    dataset = { name = "stories", limit = 200 }
    modes = [
      { kind = "base" },
      { kind = "specreason", threshold = [3, 5, 7, 9] },   # a list makes a mode of each value
      { name = "mine", program = "mine.py", depth = 3 },
    ]

Other fields of a mode than those of `Mode` are settings, or knobs of its program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from specreason_sgl.engine.transport import Transport
from specreason_sgl.engine.watch import WAIT_S
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.datasets import GENERATED, DatasetSpec
from specreason_sgl.files import read_toml
from specreason_sgl.lang.knobs import as_json, set_knobs
from specreason_sgl.settings import Settings
from specreason_sgl.tables import complaint, put
from specreason_sgl.text.score_file import with_score_read

if TYPE_CHECKING:
    from specreason_sgl.lang.loading import Program

Kind = Literal[
    "base",
    "small",
    "specreason",
    "lookahead",
    "random",
    "oracle",
    "base+decode",
    "specreason+decode",
    "lookahead+decode",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

PROGRAMS: Mapping[Kind, str] = {
    "base": "base_only",
    "small": "small_only",
    "specreason": "specreason",
    "lookahead": "lookahead",
    "random": "random_accept",
    "oracle": "oracle",
    "base+decode": "base_only",
    "specreason+decode": "specreason",
    "lookahead+decode": "lookahead",
}

DECODE = "decode"
"""The role of the base model on a server with speculative decoding."""

DECODING: frozenset[Kind] = frozenset({"base+decode", "specreason+decode", "lookahead+decode"})

_MARKS = {"threshold": "t", "budget": "b", "first_n": "n"}
_SETTINGS = frozenset(Settings.model_fields)
_MOVED = ("threshold", "score", "first_n", "min_step_tokens", "back_off")
"""Knobs that were settings in the first version: its jobs and runs have them among the settings."""


class JobPair(BaseModel):
    """The servers of a job; the embedded pair if none are named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair: str | None = None
    base: str | None = None
    small: str | None = None
    models: dict[str, str] = Field(default_factory=dict)
    """Further servers by role: `decode`, the base model with speculative decoding on, and those that programs name."""
    wait_for_server_s: float = Field(WAIT_S, ge=0, allow_inf_nan=False)
    """Seconds to wait for a server that stops answering before the run ends; solves are not charged for pauses."""
    call_limit_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Seconds without any answer after which a call is sent again; the time limit of a solve if not given."""
    thinking: str | None = None
    """The models' thinking format, or two with a comma between, for base and small; the servers' own if not given."""
    transport: Transport = "auto"
    """How prompts travel."""

    @model_validator(mode="before")
    @classmethod
    def _decode_is_a_role(cls, row: Any) -> Any:
        if isinstance(row, dict) and DECODE in row:
            url, rest = row[DECODE], {name: value for name, value in row.items() if name != DECODE}
            return {**rest, "models": {**rest.get("models", {}), **({DECODE: url} if url else {})}}
        return row


class Mode(BaseModel):
    """A named way to solve problems: a program with parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.+@-]+$")
    kind: Kind | None = None
    """None for a program that does not come with the package."""
    program: str
    """A stock program's name or a file."""
    settings: Settings
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The program's own knobs."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Models that replace others, by role: ``{ base = "decode" }``."""
    plain: bool = False
    """Whether its calls are made as by SGLang's own frontend, as a baseline for our calls."""
    of: str | None = None
    """For ``random``: the mode whose acceptance it imitates."""
    against: str | None = None
    """The mode that it is compared with: the base model alone, with the same budget if there is such a mode."""
    equal_cost: bool = Field(False, exclude_if=lambda declared: not declared)
    """Whether it is the base model alone with more or less to spend, for comparisons with modes that cost as much."""

    @property
    def is_base(self) -> bool:
        """Whether it is the base model alone."""
        return self.kind == "base"


class Job(BaseModel):
    """Everything that decides what a run measures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.+@-]+$")
    dataset: DatasetSpec
    pair: JobPair = JobPair()
    modes: tuple[Mode, ...] = Field(min_length=1)
    repeats: int = Field(1, ge=1)
    """Solves of each problem in each mode."""
    seed: int = 0
    """The run's seed: together with the problem and the repeat it gives every solve a random stream of its own."""
    settings: Settings = Field(default_factory=lambda: Settings.model_validate({}))
    """The settings of all modes; a mode can override them."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Knobs for all modes whose programs have them; a mode can override them."""
    concurrency: int | None = Field(None, ge=1)
    """How many solves run at the same time: 1 measures the latency of a single stream, more measure throughput. If not
    given, as many as the servers have room for.
    """
    problem_limit_s: float = Field(1800.0, gt=0)
    """Seconds after which a solve fails."""
    flush_cache: bool = True
    """Whether to empty the radix caches when no solve is running, so that no mode profits from another mode's calls."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_modes(cls, row: Any) -> Any:
        if not isinstance(row, dict) or not isinstance(row.get("modes"), list | tuple):
            return row
        given, moved = _apart(row.get("settings") or {})
        shared = _settings(given, "the job")
        modes = [mode for entry in row["modes"] for mode in _expand(entry, shared)]
        parameters = {**moved, **(row.get("parameters") or {})}
        return {
            **row,
            "settings": shared,
            "parameters": parameters,
            "modes": [_related(mode, modes, parameters) for mode in modes],
        }

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
            if mode.equal_cost and "base" in mode.roles:
                raise ValueError(f"mode `{mode.name}` is no control at equal cost: another model stands in for base")
            if mode.kind == "random" and mode.of is None and "rate" not in mode.parameters:
                raise ValueError(f"mode `{mode.name}` needs a `specreason` mode, or a `rate` among its parameters")
            if mode.kind == "oracle" and self.dataset.name not in GENERATED:
                known = " and ".join(f"`{name}`" for name in GENERATED)
                raise ValueError(f"mode `{mode.name}` needs to know which steps are right; only {known} tell")
        return self

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """Which modes are compared with which, by their names.

        Every mode is compared with the base model alone; those under which the base model drafts tokens also with the
        base model that drafts tokens and does nothing else; a mode whose acceptance another one imitates with that one.
        """
        alone = [(mode.name, mode.against) for mode in self.modes if mode.against]
        decoding = [mode for mode in self.modes if mode.kind == "base+decode"]
        under = [
            (mode.name, _same_budget(mode, decoding).name)
            for mode in self.modes
            if decoding and mode not in decoding and DECODE in mode.roles.values()
        ]
        return [*alone, *under, *((mode.of, mode.name) for mode in self.modes if mode.of)]

    @property
    def controls(self) -> list[str]:
        """The modes that others are compared with at equal cost; where there is any, `base` is one of them."""
        if not any(mode.equal_cost for mode in self.modes):
            return []
        return [mode.name for mode in self.modes if mode.equal_cost or mode.is_base]

    def mode(self, name: str) -> Mode:
        """The mode with this name."""
        return next(mode for mode in self.modes if mode.name == name)

    def only(self, names: Sequence[str]) -> Job:
        """The same job with only some of its modes, and those that they depend on.

        Raises:
            UsageError: the job has no mode of that name.
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


def read_job(
    path: Path,
    overrides: Mapping[str, Any] | None = None,
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {},
) -> Job:
    """A job from a file, with some of its values replaced.

    Args:
        path: a TOML file, or the name of a stock job.
        overrides: values by dotted name, such as ``settings.budget``.
        defaults: returns a pair's default settings, given the job's table ``pair``.

    Raises:
        UsageError: there is no such file, or a value in it is not valid; the message names the field.
    """
    found = path if path.is_file() else stock().get(path.name.removesuffix(".toml"))
    if found is None:
        raise UsageError(
            f"there is no job `{path}`", hint=f"stock jobs are {', '.join(f'`{name}`' for name in stock())}"
        )
    row = read_toml(found)
    is_open = isinstance(dataset := row.get("dataset", {}), dict) and "name" not in dataset
    for name, value in (overrides or {}).items():
        put(row, name.split("."), value)
    if is_open and "name" not in row.get("dataset", {}):
        raise UsageError(f"`{found}` leaves the dataset open", hint="name it with `--dataset NAME`")
    row.setdefault("name", f"{found.stem}-{row['dataset']['name']}" if is_open else found.stem)
    if isinstance(pair := row.get("pair", {}), dict) and isinstance(settings := row.get("settings", {}), dict):
        row["settings"] = {**defaults(pair), **settings}
    for mode in row.get("modes", ()):
        program = isinstance(mode, dict) and mode.get("program")
        if program and (beside := found.parent / program).is_file():
            mode["program"] = str(beside)
    modes = [mode for mode in row.get("modes", ()) if isinstance(mode, dict)]
    for knobs in (row.get("parameters"), *modes, *(mode.get("parameters") for mode in modes)):
        if isinstance(knobs, dict):
            knobs.update(with_score_read(knobs))
    try:
        return Job.model_validate(row)
    except ValidationError as error:
        raise UsageError(f"`{found}`: {'; '.join(complaint(e) for e in error.errors())}") from error


def resolved(job: Job, programs: Mapping[str, Program]) -> Job:
    """The job with every knob of these programs set, in all modes that run them.

    Args:
        job: the job as it was read.
        programs: the programs, by the names that modes use for them.

    Raises:
        UsageError: a program has no such knob, or a value does not fit its type; the message names the mode.
    """
    modes = tuple(_with_knobs(mode, job.parameters, programs) for mode in job.modes)
    left = job.parameters if any(mode.program not in programs for mode in modes) else {}
    return job.model_copy(update={"modes": modes, "parameters": left})


def _with_knobs(mode: Mode, shared: Mapping[str, Any], programs: Mapping[str, Program]) -> Mode:
    if mode.program not in programs:
        return mode
    known = programs[mode.program].knobs
    given = {name: value for name, value in shared.items() if name in known} | mode.parameters
    late = {"rate": 0.0} if mode.of is not None and "rate" not in given else {}  # only the run knows it
    try:
        knobs = set_knobs(known, given | late, programs[mode.program].name)
    except UsageError as error:
        raise UsageError(f"mode `{mode.name}`: {error}", hint=error.hint) from error
    return mode.model_copy(update={"parameters": as_json({name: knobs[name] for name in knobs if name not in late})})


def filled_in(stored: Any, programs: Mapping[str, Program]) -> Any:
    """A stored job in the form of this version: fields that are newer than the job get their defaults."""
    try:
        moved = _moved(stored, programs)
        known = resolved(Job.model_validate(moved), programs).model_dump(mode="json", exclude={"pair"})
    except (ValidationError, UsageError):
        return stored
    return _filled_in(moved, known)


def _moved(stored: Any, programs: Mapping[str, Program]) -> Any:
    """A stored job with the first version's settings that are knobs in this version moved to the parameters."""
    if not isinstance(stored, dict) or not isinstance(stored.get("modes"), list):
        return stored
    modes = []
    for mode in stored["modes"]:
        settings, knobs = _apart(mode.get("settings") or {})
        program = programs.get(mode.get("program"))
        had = {name: value for name, value in knobs.items() if program and name in program.knobs}
        modes.append({**mode, "settings": settings, "parameters": {**had, **(mode.get("parameters") or {})}})
    return {**stored, "settings": _apart(stored.get("settings") or {})[0], "modes": modes}


def _apart(settings: Any) -> tuple[Any, dict[str, Any]]:
    """Split settings of the first version into settings and knobs of programs."""
    if not isinstance(settings, dict):
        return settings, {}
    knobs = {name: value for name, value in settings.items() if name in _MOVED}
    return {name: value for name, value in settings.items() if name not in knobs}, knobs


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
    """The modes that one entry of the file stands for: one for each value of its lists."""
    if isinstance(entry, Mode):
        entry = entry.model_dump()
    if not isinstance(entry, dict):
        raise ValueError(f"a mode is a table, not `{entry!r}`")  # noqa: TRY004 - pydantic wants it
    kind = entry.get("kind")
    if kind is None and entry.get("program") is None:
        raise ValueError("a mode needs a `kind` or a `program`")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"there is no kind of mode `{kind}`; there are {', '.join(KINDS)}")
    rest = {name: value for name, value in entry.items() if name in Mode.model_fields}
    knobs = {name: value for name, value in entry.items() if name not in Mode.model_fields}
    given, moved = _apart(rest.pop("settings", None) or {})
    base, own = {**shared.model_dump(), **given}, {**moved, **(rest.pop("parameters", None) or {})}
    program = rest.get("program") or PROGRAMS[cast("Kind", kind)]
    name = rest.pop("name", None) or kind or Path(program).stem
    roles = rest.pop("roles", None) or ({"base": DECODE} if kind in DECODING else {})
    swept = [knob for knob, value in knobs.items() if isinstance(value, list)]
    modes = []
    for values in product(*(knobs[knob] for knob in swept)):
        chosen = {**knobs, **dict(zip(swept, values, strict=True))}
        mark = "".join(f"-{_MARKS.get(knob, knob)}{chosen[knob]}" for knob in swept)
        of_settings = {knob: value for knob, value in chosen.items() if knob in _SETTINGS}
        settings = _settings({**base, **of_settings}, f"mode `{name}`")
        parameters = own | {knob: value for knob, value in chosen.items() if knob not in _SETTINGS}
        modes.append(
            {
                **rest,
                "name": name + mark,
                "program": program,
                "roles": roles,
                "settings": settings.model_dump(),
                "parameters": parameters,
            }
        )
    return modes


def _same_budget(mode: Mode, some: Sequence[Mode]) -> Mode:
    """The first of some modes that has the same budget; if none has, the first of all."""
    return next((one for one in some if one.settings.budget == mode.settings.budget), some[0])


def _settings(values: Any, owner: str) -> Settings:
    if isinstance(values, Settings):
        return values
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{owner}: {'; '.join(complaint(e) for e in error.errors())}") from error


def _related(mode: dict[str, Any], modes: list[dict[str, Any]], shared: Mapping[str, Any]) -> dict[str, Any]:
    """The mode with the names of the modes that it refers to filled in."""
    kind = mode.get("kind")

    def value(of: dict[str, Any], knob: str) -> Any:
        return of["settings"].get(knob, of["parameters"].get(knob, shared.get(knob)))

    def closest(wanted: Kind, *knobs: str) -> str | None:
        some = [m for m in modes if m.get("kind") == wanted and m is not mode]
        alike = [m for m in some if all(value(m, knob) == value(mode, knob) for knob in knobs)]
        return next((m["name"] for m in (*alike, *some)), None)

    if kind == "random" and mode.get("of") is None and "rate" not in mode["parameters"]:
        mode = {**mode, "of": closest("specreason", "budget", "threshold")}
    if kind == "random":
        aimed_at = next((m for m in modes if m["name"] == mode.get("of")), None)
        of = aimed_at["parameters"] if aimed_at else {}
        parameters = {knob: of[knob] for knob in ("first_n", "min_step_tokens") if knob in of} | mode["parameters"]
        parameters = {knob: given for knob, given in parameters.items() if knob not in {"threshold", "score"}}
        settings = aimed_at["settings"] if aimed_at else mode["settings"]
        mode = {**mode, "settings": settings, "parameters": parameters}
    if mode.get("against") is None and kind != "base":
        mode = {**mode, "against": closest("base", "budget")}
    return mode
