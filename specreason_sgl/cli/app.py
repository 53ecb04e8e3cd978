"""The command line: ``specreason``. Commands import what they need when they run, so that ``--help`` is immediate."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

from specreason_sgl import __version__
from specreason_sgl.cli.audit import audit
from specreason_sgl.cli.bench import bench
from specreason_sgl.cli.calibrate import calibrate
from specreason_sgl.cli.diff import diff
from specreason_sgl.cli.doctor import doctor
from specreason_sgl.cli.evaluate import evaluate
from specreason_sgl.cli.import_trace import import_trace
from specreason_sgl.cli.listing import list_runs
from specreason_sgl.cli.programs import programs
from specreason_sgl.cli.replay import replay
from specreason_sgl.cli.report import report
from specreason_sgl.cli.run import run
from specreason_sgl.cli.serve import serve
from specreason_sgl.cli.servers import down, status, up
from specreason_sgl.cli.stops import leave
from specreason_sgl.cli.watch import watch
from specreason_sgl.errors import SIGNALLED, SpecReasonError, UsageError
from specreason_sgl.lang.stopping import INTERRUPTED
from specreason_sgl.view.output import prepare, say, silence

app = typer.Typer(
    name="specreason",
    help="SpecReason: a small model drafts each reasoning step, the base model judges it or writes it itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"specreason {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit")
    ] = False,
) -> None:
    del version


app.command("run")(run)
app.command("eval")(evaluate)
app.command("serve")(serve)
app.command("programs")(programs)
app.command("report")(report)
app.command("audit")(audit)
app.command("calibrate")(calibrate)
app.command("bench")(bench)
app.command("diff")(diff)
app.command("replay")(replay)
app.command("list")(list_runs)
app.command("import-trace")(import_trace)
app.command("up")(up)
app.command("status")(status)
app.command("down")(down)
app.command("watch")(watch)
app.command("doctor")(doctor)


def main() -> int:
    """Run the command line; returns the exit code."""
    prepare()
    try:
        code = _run()
    except OSError as error:
        code = _complain(_told(error))
    if code >= SIGNALLED:
        leave(code)
    return code


def _run() -> int:
    try:
        app()
    except SpecReasonError as error:
        return _complain(error)
    except ModuleNotFoundError as error:
        from specreason_sgl.packages import missing

        if (known := missing(error)) is None:
            raise
        return _complain(known)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def _told(error: OSError) -> SpecReasonError:
    """An error of the disk or of a file, as an error of one line."""
    if error.errno == errno.ENOSPC:
        silence(sys.stdout)
        return SpecReasonError("cannot write: the disk is full", hint="free some space")
    if error.filename is None:
        raise error
    return UsageError(f"cannot use `{error.filename}`: {error.strerror}")


def _complain(error: SpecReasonError) -> int:
    for word, text in (("error", str(error)), ("hint", error.hint)):
        if text:
            more = text.replace("\n", "\n  ")  # whatever is quoted in it, only a whole line is a line of ours
            say(f"{word}: {more}", err=True)
    return error.exit_code
