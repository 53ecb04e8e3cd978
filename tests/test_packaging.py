"""What is installed where: what is declared, what the wheel carries, and what works without SGLang."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = list(map(Requirement, PROJECT["project"]["dependencies"]))
_PIN = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>\S+) \\\n(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
)

LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "python_version": "3.11"}
ARM = LINUX | {"platform_machine": "aarch64", "python_version": "3.12"}
MAC = {"sys_platform": "darwin", "platform_machine": "arm64", "python_version": "3.12"}
WINDOWS = {"sys_platform": "win32", "platform_machine": "AMD64", "python_version": "3.11"}
NEWER = LINUX | {"python_version": "3.13"}
OTHER = LINUX | {"platform_machine": "riscv64"}
WITHOUT = {"macOS": MAC, "Windows": WINDOWS, "Python 3.13": NEWER, "another machine": OTHER}
"""Where SGLang, or something that it needs, has no wheels."""
SERVES = {"fastapi", "httpx", "prometheus-client", "starlette", "uvicorn"}
ASKS_MODELS = SERVES | {"datasets", "openai", "setproctitle", "sglang", "tokenizers", "torch", "transformers"}
ONLY_UNIX = {"fcntl", "pwd", "resource", "termios"}


def pins(file: str = "requirements.txt") -> dict[str, str]:
    """Versions by name; fails on any line that is not a pin with its hashes."""
    left = (ROOT / ".ci" / file).read_text(encoding="utf-8")
    found: dict[str, str] = {}
    while left:
        pin = _PIN.match(left)
        assert pin, left[:200]
        found[canonicalize_name(pin["name"])] = pin["version"]
        left = left[pin.end() :]
    return found


def test_everything_that_the_project_asks_for_is_pinned_with_hashes() -> None:
    asked = [*DECLARED, *map(Requirement, PROJECT["dependency-groups"]["dev"])]
    pinned = pins()

    for requirement in asked:
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_clients_are_pinned_with_hashes_and_bring_no_torch() -> None:
    pinned = pins("clients.txt")

    for requirement in map(Requirement, PROJECT["dependency-groups"]["clients"]):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement
    assert not {"torch", "transformers", "sglang"} & set(pinned)


def imported(folder: Path) -> set[str]:
    """The packages of others that the modules of a folder import, wherever they do."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"specreason_sgl"}


def test_what_is_imported_is_declared_and_nothing_else() -> None:
    more = [Requirement(each) for group in PROJECT["project"]["optional-dependencies"].values() for each in group]
    declared = {canonicalize_name(each.name) for each in (*DECLARED, *more)}
    of = packages_distributions()
    needed = {canonicalize_name(of.get(module, [module])[0]) for module in imported(ROOT / "specreason_sgl")}

    assert needed == declared


def installed(where: dict[str, str]) -> set[str]:
    """What installing the project brings there, by the markers of everything that is on the way."""
    found: set[str] = set()

    def add(asked: Iterable[Requirement], extras: Iterable[str] = ("",)) -> None:
        for each in asked:
            if each.marker and not any(each.marker.evaluate({**where, "extra": extra}) for extra in extras):
                continue
            name = canonicalize_name(each.name)
            if name not in found or each.extras:
                found.add(name)
                add(map(Requirement, requires(name) or ()), ("", *each.extras))

    add(DECLARED)
    return found


@pytest.mark.parametrize("where", WITHOUT.values(), ids=WITHOUT)
def test_where_sglang_has_no_wheels_everything_else_is_installed(where: dict[str, str]) -> None:
    brought = {each.name for each in DECLARED if each.marker is None or each.marker.evaluate(where)}

    assert brought == {each.name for each in DECLARED} - ASKS_MODELS
    assert not installed(where) & ASKS_MODELS


@pytest.mark.parametrize("where", [LINUX, ARM], ids=["x86_64", "aarch64"])
def test_linux_gets_what_asks_models(where: dict[str, str]) -> None:
    assert all(each.marker is None or each.marker.evaluate(where) for each in DECLARED)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def installation(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment with the wheel and what this one has, but not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    (wheel,) = built.glob("*.whl")
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--quiet"]
    subprocess.run([*uv, "--python", python, wheel], check=True)
    (packages,) = folder.glob("lib/*/site-packages")
    # Only folders that are named by the environment itself have their own such files read: not the checkout's.
    theirs = {str(Path(each)) for each in sys.path if each.endswith("site-packages")}
    (packages / "others.pth").write_text("\n".join(sorted(theirs)))
    return python.parent


ALONE = """
import json, os, signal, sys
absent, where, commands = json.loads(sys.argv[1])
class Partly:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Partly, sys.meta_path)
if "fcntl" in absent:
    for module, name in ((signal, "SIGHUP"), (signal, "SIGWINCH"), (os, "tcgetpgrp"), (os, "getpgrp"), (os, "fork")):
        delattr(module, name)
from packaging import markers
here = markers.default_environment()
markers.default_environment = lambda: here | where
from specreason_sgl.cli.app import main
for command in commands:
    sys.argv = ["specreason", *command]
    print(f"exit {main()}", flush=True)
"""


def alone(python: Path, where: dict[str, str], folder: Path, *commands: list[str]) -> tuple[list[str], str, str]:
    """Exit codes and words of commands, in a process that finds nothing but what is installed there."""
    brought = installed(where)
    absent = {name for name, of in packages_distributions().items() if not brought & set(map(canonicalize_name, of))}
    absent = absent - {"specreason_sgl"} | (ONLY_UNIX if where["sys_platform"] == "win32" else set())
    done = subprocess.run(
        [python, "-c", ALONE, json.dumps([sorted(absent), where, commands])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return re.findall(r"^exit (\d+)$", done.stdout, re.MULTILINE), done.stdout, done.stderr


READING = (
    ["replay", "example"],
    ["replay", "example", "--threshold", "9", "--json"],
    ["replay", "example", "--export", "trace.html"],
    ["report", "example", "--markdown"],
    ["audit", "example"],
    ["diff", "example", "example"],
    ["import-trace", "steps.jsonl", "--out", "runs/imported", "--threshold", "7", "--problems", "problems.jsonl"],
    ["list"],
    ["replay", "latest"],
)


def traces(folder: Path) -> None:
    """What the reference implementation might have written, and the problem that it solved."""
    step = {
        "step_id": 0,
        "step_str": "So 6. \\boxed{6}",
        "small_model_step": "So 6. \\boxed{6}",
        "base_model_step": None,
    }
    row = step | {"score": 8, "problem_id": "0", "run": 0, "stop_reason": "finished"}
    (folder / "steps.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "problems.jsonl").write_text(json.dumps({"id": "0", "question": "2 + 4?", "answer": "6"}) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("where", [MAC, WINDOWS], ids=["macOS", "Windows"])
def test_stored_runs_are_read_where_nothing_can_ask_a_model(
    installation: Path, tmp_path: Path, where: dict[str, str]
) -> None:
    traces(tmp_path)
    codes, out, err = alone(installation / "python", where, tmp_path, *READING)

    assert codes == ["0"] * len(READING), err
    assert "◆ answered  193" in out
    assert (tmp_path / "trace.html").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("where", WITHOUT.values(), ids=WITHOUT)
def test_what_asks_a_model_says_in_a_line_what_is_missing(
    installation: Path, tmp_path: Path, where: dict[str, str]
) -> None:
    hours = [
        "eval",
        "tales",
        "--dry-run",
        "--estimate",
        "--base",
        "http://127.0.0.1:9",
        "--small",
        "http://127.0.0.1:9",
    ]
    asking = (["run"], ["run", "q", "--base", "http://127.0.0.1:9"], ["eval", "tales"], hours, ["bench"], ["up"])
    codes, _, err = alone(installation / "python", where, tmp_path, *asking)
    told = [line for line in err.splitlines() if not line.startswith("note: ")]

    assert codes == ["2"] * len(asking)
    assert all(line.startswith("error: the package `sglang` cannot be installed here: ") for line in told[::2]), err
    assert all("`specreason replay example`" in line for line in told[1::2])
    assert len(told) == 2 * len(asking)
    assert not (tmp_path / "runs").exists()


def carried() -> Iterator[tuple[str, Path]]:
    """Every file that an installation needs, by its name in the wheel."""
    for folder, place in (
        ("specreason_sgl", ""),
        ("programs", "specreason_sgl/stock/"),
        ("eval", "specreason_sgl/stock/"),
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield place + path.relative_to(ROOT).as_posix(), path


@pytest.mark.slow
def test_the_wheel_carries_every_file_and_the_source_distribution_too(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(source) as archived:
        names = {name.partition("/")[2] for name in archived.getnames()}

    assert held == {name: path.read_bytes() for name, path in carried()}
    assert {path.relative_to(ROOT).as_posix() for _, path in carried()} <= names
    assert {"pyproject.toml", "CITATION.cff", "CONTRIBUTING.md", "README.md", "LICENSE"} <= names


@pytest.mark.slow
def test_the_installed_package_is_not_the_checkout(installation: Path, tmp_path: Path) -> None:
    code = "import specreason_sgl, sys; print(specreason_sgl.__file__); print(*sys.path, sep='\\n')"
    found = subprocess.run(
        [installation / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    file, *path = found.stdout.split("\n")

    assert Path(file).is_relative_to(installation.parent)
    assert str(ROOT) not in path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["--version"], "specreason 0."),
        (["replay", "example"], "◆ answered  193"),
        (["report", "example"], "Results"),
        (["audit", "example"], "drafts judged"),
        (["diff", "example", "example"], "1 of 1 solves are the same"),
        (["eval", "tales", "--limit", "3", "--dry-run"], "3 problems x"),
        (["up", "--pair", "qwq", "--gpus", "2x80", "--dry-run"], "--model-path Qwen/QwQ-32B"),
    ],
    ids=" ".join,
)
def test_the_wheels_commands_work(installation: Path, tmp_path: Path, command: list[str], words: str) -> None:
    done = subprocess.run(
        [installation / "specreason", *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert words in done.stdout


@pytest.mark.slow
def test_the_wheels_programs_are_found(installation: Path, tmp_path: Path) -> None:
    code = "from specreason_sgl.lang.loading import find, is_stock, stock; print(*(is_stock(find(n)) for n in stock()))"
    done = subprocess.run(
        [installation / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == ["True"] * len(list((ROOT / "programs").glob("*.py"))), done.stderr


def test_the_documents_and_the_workflow_name_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", ".github/workflows/ci.yml", ".ci/run"):
        called = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8")))
        assert called, name
        assert called <= targets, name


def test_the_workflow_runs_every_python_that_is_promised() -> None:
    promised = {each.rpartition(" ")[2] for each in PROJECT["project"]["classifiers"] if "Python :: 3." in each}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")

    assert promised == set(re.findall(r'"(3\.\d+)"', workflow))
