"""The command line. Results go to stdout, progress and warnings to stderr; exit codes are those of `errors`."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from edgecv.cli import files, machine, recipes
from edgecv.cli.printing import tell

__all__ = ["app", "main"]

app = typer.Typer(
    name="edgecv",
    help="From a vision model and a folder of photographs to the best verified version for each device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (recipes, files, machine):
    app.add_typer(part.commands)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False) -> None:
    """Take the options that come before a command."""
    _State.debug = debug


class _State:
    """The one option that outlives its command: whether `main` shows tracebacks."""

    debug = False


def main() -> NoReturn:
    """Run the command line; print an error's four lines and end with its exit code."""
    from edgecv.errors import EdgecvError

    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = app(standalone_mode=False) or 0
        if code == 130:
            tell("interrupted; the same command goes on from here")
    except EdgecvError as error:
        if _State.debug:
            traceback.print_exc()
        tell(f"error: {error}")
        code = error.exit_code
    except typer.TyperException as error:
        tell(f"error: {error.format_message()}\n  fix:      see `edgecv --help`, or `edgecv COMMAND --help`")
        code = 2
    except Exception as error:
        if _State.debug:
            traceback.print_exc()
        tell(f"error: {type(error).__name__}: {error}")
        tell("  fix:      this is a fault of edgecv; `edgecv --debug ...` shows where")
        code = 4
    sys.exit(code)
