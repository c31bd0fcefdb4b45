"""`crossflow TASK COMMAND`: the command line. Errors a user can repair are one line and exit code 2."""

import contextlib
import io
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

USAGE = """crossflow: flow one modality straight into another

usage: crossflow TASK COMMAND [options]
       crossflow show RUN [options]

tasks:
{tasks}
  PACKAGE     a task of your own: any importable package whose module `cli` has COMMANDS

`crossflow t2i --help` lists a task's commands, `crossflow t2i sample --help` a command's options.
`crossflow show RUN` tells of a run of any task: tables, curves, a page to look at.
"""
ABOUT = {
    "t2i": "text to image",
    "caption": "image to text",
    "depth": "image to depth map",
    "superres": "small picture to large picture",
}


@runtime_checkable
class Command(Protocol):
    """A command with its options."""

    def run(self) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 when it did its work, 2 when the user can repair what went wrong."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run a command and return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(tasks="\n".join(f"  {name:<11} {about}" for name, about in ABOUT.items())))
        return 0
    task, *rest = arguments
    if task == "show":
        return _run_show(rest)
    module = _commands_module(task)
    if module is None:
        return _complain(
            f"unknown task {task!r}; known: {', '.join(ABOUT)}, or an importable package with a module `cli`"
        )
    return _run_task(task, module, rest)


def _commands_module(task: str) -> str | None:
    """The module that holds a task's COMMANDS: ours, or that of a package of the user's; None if there is none."""
    from importlib.util import find_spec

    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script, unlike python -m, does not look into the current folder
    for name in (f"cf_apps.{task}.cli", f"{task}.cli"):
        try:
            if find_spec(name) is not None:
                return name
        except (ImportError, ValueError):  # a part of the dotted name does not exist, or is no package
            continue
    return None


def _run_task(task: str, module: str, arguments: list[str]) -> int:
    import importlib

    import tyro

    commands = importlib.import_module(module).COMMANDS
    config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    parse = partial(tyro.extras.subcommand_cli_from_dict, commands, prog=f"crossflow {task}", config=config)
    if arguments in ([], ["-h"], ["--help"]):
        print(_folded(parse), end="")
        return 0
    return _done(parse(args=arguments))


def _folded(parse: Callable[..., object]) -> str:
    """What --help says, its first line folded: tyro never breaks the usage, however many commands it names."""
    said = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding)  # which boxes can be drawn with
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        parse(args=["--help"])
    said.seek(0)
    usage, _, rest = said.read().partition("\n")
    width = shutil.get_terminal_size().columns
    lines = textwrap.wrap(usage.replace(",", ", "), width, subsequent_indent=" " * 8)
    return "\n".join([*lines, rest])


def _run_show(arguments: list[str]) -> int:
    import tyro

    from cf_apps.engine.watching.show.command import Show

    return _done(tyro.cli(Show, prog="crossflow show", args=arguments or ["--help"]))


def _done(command: Command) -> int:
    """Run a command whose options are known by now; returns the exit code."""
    import torch

    from cf_apps.data.captioned import DataError
    from cf_apps.engine.errors import UserError

    try:
        command.run()
    except (UserError, DataError) as error:
        return _complain(str(error))
    except torch.OutOfMemoryError as error:
        return _complain(
            f"out of memory: {str(error).splitlines()[0]}; draw fewer pictures at once or use --device cpu"
        )
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _complain(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
