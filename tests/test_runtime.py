from __future__ import annotations

import errno
import fcntl
import importlib.util
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import urllib3

from specreason_sgl.cli import app
from specreason_sgl.embedded import BASE, SMALL
from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.servers import pairs, processes
from specreason_sgl.servers.cpu import decode
from specreason_sgl.servers.plugin import ATTENTION
from specreason_sgl.servers.processes import PortTaken, ServerDied
from specreason_sgl.servers.tree import STAND_IN


def alive(group: int) -> list[Path]:
    """The living processes of a process group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.append(entry)
    return found


def named(group: int, title: str) -> int:
    return next(int(one.name) for one in alive(group) if title in (one / "cmdline").read_text())


def until(holds: Callable[[], bool], limit_s: float = 10) -> bool:
    deadline = time.monotonic() + limit_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def ended(group: int) -> bool:
    return until(lambda: not alive(group))


# What a server is told


def test_a_server_is_told_its_model_port_and_log(tmp_path: Path) -> None:
    planned = processes.model_server(
        "small", Path("/models/m"), port=20001, core=1, logs=tmp_path, extra=["--dtype", "float32"]
    )
    said = planned.arguments
    options = dict(pairwise(said))

    assert planned.url == "http://127.0.0.1:20001"
    assert planned.log == str(tmp_path / "small.log")
    assert options["--model-path"] == "/models/m"
    assert options["--host"] == "127.0.0.1"
    assert options["--port"] == "20001"
    assert options["--device"] == "cpu"
    assert options["--attention-backend"] == ATTENTION
    assert said[-2:] == ["--dtype", "float32"]
    assert "--api-key" not in said


def test_servers_and_their_router_listen_where_others_reach_them(tmp_path: Path) -> None:
    laid_out = pairs.embedded(SMALL, SMALL, 2, host=(own := own_address())).lay_out(tmp_path)
    options = [dict(pairwise(each.arguments)) for each in laid_out]

    assert len(laid_out) == 6
    assert {each.url for each in laid_out} == {f"http://{own}:{each.port}" for each in laid_out}
    assert {told["--host"] for told in options} == {own}
    assert {told.get("--prometheus-host") for told in options} == {None, "127.0.0.1"}


def own_address() -> str:
    """An address by which others could reach this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no network")
        return processes.interface(asking.getsockname()[0])


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1", "other machines do not reach this one by 127.0.0.1"),
        ("localhost", "other machines do not reach this one by 127.0.0.1"),
        ("0.0.0.0", "other machines do not reach this one by 0.0.0.0"),  # noqa: S104
        ("192.0.2.1", "`192.0.2.1` is no address of this machine"),
        ("no such name", "`no such name` is no address of this machine"),
    ],
)
def test_an_address_by_which_nobody_reaches_this_machine_is_refused(
    address: str, told: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPECREASON_API_KEY", "a-key")
    monkeypatch.setattr(sys, "argv", ["specreason", "up", "--listen", address])

    assert app.main() == 2
    assert told in capfd.readouterr().err


def test_nobody_is_let_in_without_a_key(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["specreason", "up", "--listen", own_address()])

    assert app.main() == 2
    assert "export SPECREASON_API_KEY=" in capfd.readouterr().err


def test_weights_are_safetensors_and_no_code_comes_with_a_model(tmp_path: Path) -> None:
    for role in ("base", "small"):
        said = processes.model_server(role, Path("/models/m"), port=1, core=0, logs=tmp_path).arguments

        assert dict(pairwise(said))["--load-format"] == "safetensors"
        assert "--trust-remote-code" not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SGLANG_USE_CPU_ENGINE", "1"),
        ("OMP_NUM_THREADS", "1"),
        ("OMP_WAIT_POLICY", "PASSIVE"),
        ("CUDA_VISIBLE_DEVICES", ""),
        ("HF_HUB_OFFLINE", "1"),
        ("NO_PROXY", "*"),
        ("HOME", "/home/me"),
    ],
)
def test_the_environment_is_ours_over_the_inherited(name: str, value: str) -> None:
    inherited = {"HOME": "/home/me", "OMP_NUM_THREADS": "8", "NO_PROXY": "example.org", "CUDA_VISIBLE_DEVICES": "0"}

    assert processes.environment(inherited)[name] == value


@pytest.mark.parametrize(
    ("usable", "expected"), [([0], (0, 0, 0)), ([0, 1], (0, 1, 0)), ([3, 5, 7], (3, 5, 7)), ([3, 5, 7, 9], (3, 5, 7))]
)
def test_each_server_has_a_core_of_its_own_where_there_are_so_many(
    usable: list[int], expected: tuple[int, int, int]
) -> None:
    assert processes.cores(usable) == expected


def test_ports_are_different_and_free() -> None:
    first, second = processes.free_ports(2)

    assert first != second
    assert {first, second} <= set(processes.PORTS)


@pytest.mark.parametrize(("beside", "drafts"), [(False, "base"), (True, "decode")])
def test_the_small_model_drafts_for_the_base_server_or_for_one_beside_it(beside: bool, drafts: str) -> None:
    wanted = pairs.embedded(BASE, SMALL, decode="small", beside=beside)
    planned = {one.name: one for one in wanted.lay_out(Path("logs"))}

    assert [*planned] == (["base", "small", "decode"] if beside else ["base", "small"])
    for name, one in planned.items():
        options = dict(pairwise(one.arguments))
        assert options.get("--speculative-draft-model-path") == (str(SMALL) if name == drafts else None)
    assert planned[drafts].model == str(BASE)
    assert wanted.drafted_by == "small"


@pytest.mark.parametrize(
    ("said", "meant"), [("small", "small"), ("standalone", "small"), ("auto", "small"), ("off", "off")]
)
def test_who_drafts_is_said_as_on_gpus(said: str, meant: str) -> None:
    assert decode.named(said) == meant


@pytest.mark.parametrize("asked", ["eagle3", "best", ""])
def test_a_way_of_drafting_that_is_not_known_here_is_refused(
    asked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["specreason", "up", "--decode", asked])

    assert app.main() == 2
    assert f"cannot draft tokens by `{asked}`" in capsys.readouterr().err


def test_without_a_compiler_n_grams_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UsageError, match="no C\\+\\+ compiler") as refused:
        decode.arguments("ngram", SMALL)

    assert "--decode small" in (refused.value.hint or "")
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert "NGRAM" in decode.arguments("ngram", SMALL)
    assert decode.arguments("off", SMALL) == ()


# What is said of a server that died


def test_the_tail_of_a_log_has_neither_colours_nor_progress_bars() -> None:
    log = "one\n\x1b[1;33mtwo\x1b[0m\nLoading:  0%\rLoading: 100%\n\n" + "more\n" * 3

    assert processes.tail(log) == "  one\n  two\n  Loading: 100%\n  more\n  more\n  more"
    assert len(processes.tail("line\n" * 100).splitlines()) == processes.TAIL_LINES


@pytest.mark.parametrize("shown", ["{'port': 1, 'api_key': 'secret', 'x': 2}", "ServerArgs(api_key='secret', x=2)"])
def test_the_tail_of_a_log_has_no_key(shown: str) -> None:
    told = processes.tail(f"server_args={shown}\n")

    assert "secret" not in told
    assert "api_key" in told
    assert "2" in told


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: out of memory", "ran out of memory"),
        ("the server ended by signal 9", "ran out of memory"),
        ("Traceback (most recent call last):\n...\nthe server ended by signal 9", "the whole log is in `x.log`"),
        ("the servers ended with exit code -9 while they were starting", "ran out of memory"),
        ("ModuleNotFoundError: No module named 'zmq'", "a package is missing; install the project again"),
        ("something else", "the whole log is in `x.log`"),
    ],
)
def test_a_hint_says_what_to_do(log: str, expected: str) -> None:
    assert expected in processes.hint(log, Path("x.log"))


class Dying:
    """Stands for servers whose port is taken so many times."""

    taken = 0
    starts = 0

    @classmethod
    def start(cls, *_: Any, **__: Any) -> Dying:
        cls.starts += 1
        return cls()

    @property
    def process(self) -> Dying:
        return self

    pid = 1

    def wait(self) -> None:
        pass

    def wait_until_ready(self, *_: object) -> None:
        if self.starts <= self.taken:
            raise PortTaken("port 20001 of the base server was taken by another program")

    def keep(self) -> None:
        pass

    def stop(self) -> None:
        pass


def servers_of_nothing(logs: Path) -> list[processes.ServerSpec]:
    return [processes.model_server(name, SMALL, port=9, core=0, logs=logs) for name in ("base", "small")]


@pytest.mark.parametrize(("taken", "starts"), [(0, 1), (1, 2), (2, 3)])
def test_a_pair_whose_port_is_taken_meanwhile_starts_on_others(
    taken: int, starts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dying, "taken", taken)
    monkeypatch.setattr(Dying, "starts", 0)
    monkeypatch.setattr(pairs, "Servers", Dying)
    monkeypatch.setattr(pairs, "_check", lambda *_: None)
    pairs.launch(SMALL, SMALL, tmp_path)

    assert Dying.starts == starts


def test_a_pair_whose_ports_are_always_taken_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dying, "taken", 99)
    monkeypatch.setattr(pairs, "Servers", Dying)

    with pytest.raises(PortTaken):
        pairs.launch(SMALL, SMALL, tmp_path)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecReasonError, match=f"no model in `{tmp_path}`"):
        pairs.launch(tmp_path, SMALL, tmp_path / "logs")


# The note of a pair that is up


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SPECREASON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def state(home: Path) -> Path:
    """This machine's folder, which is not there yet."""
    assert pairs.own_folder().parent == home
    return pairs.own_folder()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SPECREASON_HOME": "/a", "XDG_STATE_HOME": "/b"}, "/a"),
        ({"XDG_STATE_HOME": "/b"}, "/b/specreason"),
        ({"HOME": "/home/me"}, "/home/me/.local/state/specreason"),
    ],
)
def test_the_state_folder(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPECREASON_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert pairs.state_folder() == Path(expected)


@pytest.mark.usefixtures("state")
def test_where_nothing_is_up_nothing_is_running_or_stopped() -> None:
    assert pairs.running() is None
    assert pairs.down() is False


@pytest.mark.parametrize(
    "left_behind",
    ["", "{}", "[]", json.dumps({"base": {"url": "x"}, "small": {"url": "x"}, "logs": "x", "pid": os.getpid()})],
    ids=["nothing", "an empty note", "a list", "another process"],
)
@pytest.mark.parametrize("asked", [pairs.running, pairs.down])
def test_what_a_dead_pair_left_behind_is_cleared_away(
    asked: Callable[[], object], left_behind: str, state: Path
) -> None:
    state.mkdir(parents=True)
    (state / "pair.json").write_text(left_behind)

    assert not asked()
    assert not (state / "pair.json").exists()


@pytest.mark.parametrize(
    "odd",
    ["[" * 100_000, '{"base": {"url": "x"}, "small": {"url": "x"}, "logs": "x", "pid": 1e999}', "\0", '{"base": 1}'],
    ids=["deep", "endless", "no text", "no table"],
)
@pytest.mark.parametrize("asked", [pairs.running, pairs.down])
def test_a_note_that_makes_no_sense_is_nobodys(asked: Callable[[], object], odd: str, state: Path) -> None:
    state.mkdir(parents=True)
    (state / "pair.json").write_text(odd)
    with locked(state):
        assert not asked()


def test_waiting_for_another_command_is_said_once(state: Path) -> None:
    said: list[str] = []
    wanted = pairs.Wanted("embedded", lambda _: [], limit_s=0.5)
    with locked(state), pytest.raises(SpecReasonError, match="does not answer"):
        pairs.up(wanted, said.append)

    assert said == ["waiting for the pair that another command starts"]


SLEEPING = "import time; print(flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPING}"


@contextmanager
def sleeping(script: str = SLEEPING, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, **options) as started:
        try:
            assert started.stdout
            started.stdout.readline()
            yield started
        finally:
            started.kill()


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield lock
    finally:
        os.close(lock)


@contextmanager
def holding(folder: Path, script: str = SLEEPING, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds a folder's lock, as a pair's does."""
    with locked(folder) as lock:
        context = sleeping(script, pass_fds=(lock,), **options)
        started = context.__enter__()
    try:
        yield started
    finally:
        context.__exit__(None, None, None)


def note(folder: Path, pid: int, **more: object) -> None:
    """The note of a pair that does not answer, as the first version wrote it, and more."""
    address = {"url": "http://127.0.0.1:9", "api_key": "key"}
    row = {"label": "embedded", "base": address, "small": address, "logs": "/logs", "pid": pid, **more}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pair.json").write_text(json.dumps(row))


def identity(pid: int) -> dict[str, object]:
    """What a note says of a process besides its number."""
    return {"host": pairs.host(), "started": pairs._began(pid)}


def test_a_process_that_has_got_the_number_of_a_pair_is_left_alone(home: Path, state: Path) -> None:
    with sleeping(start_new_session=True) as bystander, locked(state), locked(home):
        began = pairs._began(bystander.pid)
        assert began is not None
        for folder, told in (
            (state, {"host": pairs.host(), "started": began - 1}),
            (state, {"host": pairs.host(), "started": None}),
            (state, {}),
            (home, {}),
        ):
            note(folder, bystander.pid, **told)

            assert pairs.down() is False
            assert pairs.running() is None
            assert pairs.key_of("http://127.0.0.1:9") is None
            assert bystander.poll() is None


def test_a_process_that_only_tries_the_lock_of_the_first_version_is_left_alone(home: Path) -> None:
    """Its number is that of a pair on another machine, or in another container, with the same home."""
    with locked(home) as elsewhere:
        trying = os.open(home / "lock", os.O_RDWR)
        with sleeping(start_new_session=True, pass_fds=(trying,)) as bystander:
            note(home, bystander.pid)

            assert pairs.down() is False
            assert pairs.running() is None
            assert bystander.poll() is None
        os.close(trying)
        assert elsewhere

        note(home, os.getpid())  # the number of this very command
        assert pairs.down() is False


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_that_stands_for_many_processes_is_nobodys(number: int, state: Path) -> None:
    with locked(state):
        for told in ({"host": pairs.host(), "started": 0}, {"host": pairs.host(), "started": None}, {}):
            note(state, number, **told)

            assert pairs.down() is False


@pytest.mark.parametrize(("script", "by"), [(SLEEPING, signal.SIGTERM), (STUBBORN, signal.SIGKILL)])
def test_the_process_of_a_pair_is_ended_one_way_or_the_other(
    script: str, by: signal.Signals, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "STOP_S", 1.0)
    with holding(state, script, start_new_session=True) as served:
        note(state, served.pid, **identity(served.pid))

        assert pairs.key_of("http://127.0.0.1:9/") == "key"
        assert pairs.down() is True
        assert served.wait() == -by
        assert not (state / "pair.json").exists()


def test_a_pair_that_does_not_end_is_not_waited_for_for_ever(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "STOP_S", 0.3)
    with holding(state, STUBBORN) as member:  # of our own group, which is not to be killed
        note(state, member.pid, **identity(member.pid))

        with pytest.raises(SpecReasonError, match=f"the pair of process {member.pid} does not end"):
            pairs.down()
        assert member.poll() is None


def test_a_pair_of_the_first_version_is_known_by_the_lock_that_it_holds(home: Path) -> None:
    with holding(home, start_new_session=True) as served:
        note(home, served.pid)
        wanted = pairs.Wanted("another", lambda _: [])

        with pytest.raises(SpecReasonError, match="another pair is up: embedded"):
            pairs.up(wanted)
        assert pairs.down() is True
        assert served.wait() == -signal.SIGTERM


def test_a_note_of_the_first_version_may_be_another_machines_and_stays(home: Path) -> None:
    note(home, 1)

    assert pairs.running() is None
    assert pairs.down() is False
    assert (home / "pair.json").exists()


def test_machines_that_share_a_home_have_a_pair_each(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pairs, "Servers", Dying)
    monkeypatch.setattr(pairs, "_check", lambda *_: None)
    monkeypatch.setattr(socket, "gethostname", lambda: "node-a")
    with holding(pairs.own_folder(), start_new_session=True) as served:
        note(pairs.own_folder(), served.pid, **identity(served.pid))

        monkeypatch.setattr(socket, "gethostname", lambda: "node-b")
        assert pairs.running() is None
        assert pairs.up(pairs.Wanted("theirs", servers_of_nothing))[1]
        assert (home / "on-node-b" / "pair.json").exists()
        (home / "on-node-b" / "pair.json").unlink()
        monkeypatch.setattr(sys, "argv", ["specreason", "down"])
        assert app.main() == 0
        told = capsys.readouterr()
        assert (told.out, told.err) == (
            "no pair was up\n",
            "note: a pair was started on `node-a`: it is asked for and stopped there\n",
        )
        assert served.poll() is None

        monkeypatch.setattr(socket, "gethostname", lambda: "node-a")
        assert pairs.elsewhere() == []
        assert pairs.down() is True


def test_a_pair_is_not_waited_for_that_another_machine_of_this_name_has_up(state: Path) -> None:
    with sleeping(start_new_session=True) as bystander, locked(state):
        note(state, bystander.pid, host="another boot", started=pairs._began(bystander.pid))

        for ask in (pairs.down, lambda: pairs.up(pairs.Wanted("embedded", servers_of_nothing))):
            with pytest.raises(SpecReasonError, match="was started on another machine") as refused:
                ask()
            assert "SPECREASON_HOME" in str(refused.value.hint)
        assert bystander.poll() is None
        assert (state / "pair.json").exists()


def test_a_name_that_is_no_folders_name_stays_inside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("..", "../../x", "/x"):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)

        assert pairs.own_folder().resolve().parent == home.resolve()


@pytest.mark.parametrize("why", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_where_nothing_can_be_locked_that_is_said(why: int, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(SpecReasonError, match=f"cannot use the state folder `{state}`: {os.strerror(why)}") as told:
        pairs.up(pairs.Wanted("embedded", servers_of_nothing))
    assert "SPECREASON_HOME" in str(told.value.hint)


def test_a_state_folder_that_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SPECREASON_HOME", str(tmp_path / "file"))

    assert pairs.running() is None
    with pytest.raises(SpecReasonError, match="cannot use the state folder"):
        pairs.up(pairs.Wanted("embedded", servers_of_nothing))


def test_an_api_key_is_not_shown() -> None:
    assert "secret" not in repr(pairs.Address("http://127.0.0.1:1", "secret"))


# The stand-in for the compiled kernels


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "sgl_kernel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(STAND_IN)
    return importlib.import_module("sgl_kernel")


def test_a_missing_operation_is_named_when_it_is_called(stand_in: ModuleType) -> None:
    with pytest.raises(NotImplementedError, match=r"`sgl_kernel\.rmsnorm`"):
        stand_in.rmsnorm(1, eps=2)


def test_operations_of_submodules_are_named_too(stand_in: ModuleType) -> None:
    assert stand_in.__name__ == "sgl_kernel"
    attention = importlib.import_module("sgl_kernel.flash.attn")
    with pytest.raises(NotImplementedError, match=r"`sgl_kernel\.flash\.attn\.varlen`"):
        attention.varlen()


def test_the_stand_in_does_not_claim_to_have_a_version(stand_in: ModuleType) -> None:
    assert not hasattr(stand_in, "__version__")


# Imports


def test_neither_torch_nor_sglang_is_imported() -> None:
    script = (
        "import sys, specreason_sgl.servers.pairs; sys.exit(bool({'torch', 'sglang', 'transformers'} & {*sys.modules}))"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# Real servers


@pytest.mark.server
def test_a_pair_serves_who_has_its_key(servers: pairs.RunningPair) -> None:
    assert [*servers.addresses] == ["base", "small", "decode"]
    for address in servers.addresses.values():
        allowed = {"Authorization": f"Bearer {address.api_key}"}

        assert urllib3.request("GET", f"{address.url}/model_info").status == 401
        assert urllib3.request("GET", f"{address.url}/model_info", headers=allowed).status == 200
    assert servers.is_healthy()


@pytest.mark.server
def test_the_key_is_in_no_process_list_and_no_log(servers: pairs.RunningPair) -> None:
    key = (servers.base.api_key or "").encode()
    shown = [(one / name).read_bytes() for one in alive(servers.pid) for name in ("cmdline", "environ")]
    logs = sorted(servers.logs.iterdir())

    assert len(key) > 20
    assert all(key not in text for text in chain(shown, (log.read_bytes() for log in logs)))
    assert [log.name for log in logs] == ["base.log", "decode.log", "pair.log", "small.log"]
    assert {stat.S_IMODE(log.stat().st_mode) for log in logs} == {0o600}


OWNER = """
import sys, time
from pathlib import Path
from specreason_sgl.servers import pairs, processes
from specreason_sgl.servers.cpu import decode
from specreason_sgl.servers.plugin import ATTENTION
start = processes.Servers.start
def starting(*given, **named):
    started = start(*given, **named)
    print(started.process.pid, flush=True)
    return started
processes.Servers.start = starting
model, logs = map(Path, sys.argv[1:])
pairs.launch(model, model, logs)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.server
@pytest.mark.parametrize("moment", ["starting", "ready"])
def test_no_server_outlives_its_owner(moment: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, SMALL, tmp_path / "logs"], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        group = int(owner.stdout.readline())
        if moment == "ready":
            assert owner.stdout.readline() == "ready\n"
            assert len(alive(group)) == 7
        owner.kill()

    assert ended(group)


@pytest.mark.server
@pytest.mark.parametrize("part", ["sglang::scheduler", "sglang::detokenizer"])
def test_a_pair_that_has_an_owner_ends_whole_with_any_part(part: str, tmp_path: Path) -> None:
    with pairs.launch(SMALL, SMALL, tmp_path / "logs") as pair:
        os.kill(named(pair.pid, part), signal.SIGKILL)

        assert ended(pair.pid)


@pytest.mark.server
def test_a_pair_that_is_up_is_found_again_and_ends_with_its_root(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "-a-key-may-begin-like-an-option")
    pair, started = pairs.up(pairs.embedded(SMALL, SMALL))
    try:
        again, started_again = pairs.up(pairs.embedded(SMALL, SMALL))

        assert (started, started_again) == (True, False)
        assert pair == again == pairs.running()
        assert stat.S_IMODE(state.stat().st_mode) == stat.S_IMODE((state / "logs").stat().st_mode) == 0o700
        assert stat.S_IMODE((state / "pair.json").stat().st_mode) == 0o600

        os.kill(pair.pid, signal.SIGKILL)

        assert ended(pair.pid)
        assert pairs.running() is None
        # Its servers hold the lock for as long as the kernel takes to end them.
        assert until(lambda: pairs.running() is None and not (state / "pair.json").exists())
    finally:
        pairs.down()


@pytest.mark.server
def test_a_pair_can_be_stopped_while_it_starts(state: Path) -> None:
    script = (
        "import sys, pathlib; from specreason_sgl.servers import pairs; "
        "pairs.up(pairs.embedded(*map(pathlib.Path, sys.argv[1:])))"
    )
    with subprocess.Popen([sys.executable, "-c", script, SMALL, SMALL], stderr=subprocess.PIPE, text=True) as starting:
        assert until((state / "pair.json").exists)
        group = json.loads((state / "pair.json").read_text())["pid"]

        assert pairs.running() is None
        assert pairs.down()
        assert not alive(group)
        assert starting.wait(10) != 0


@pytest.mark.server
def test_a_server_that_dies_while_starting_is_reported(tmp_path: Path) -> None:
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    for file in SMALL.iterdir():
        (unknown / file.name).symlink_to(file)
    config = json.loads((SMALL / "config.json").read_text()) | {"architectures": ["NoSuchForCausalLM"]}
    (unknown / "config.json").unlink()
    (unknown / "config.json").write_text(json.dumps(config))

    with pytest.raises(ServerDied, match="the small server ended while it was starting") as caught:
        pairs.launch(SMALL, unknown, tmp_path / "logs")

    assert "NoSuchForCausalLM" in str(caught.value)
    assert caught.value.hint == f"the whole log is in `{tmp_path / 'logs' / 'small.log'}`"
