"""`crossflow TASK COMMAND`: the command line. Errors a user can repair are one line and exit code 2."""

import sys
from collections.abc import Sequence

USAGE = """crossflow: flow one modality straight into another

usage: crossflow TASK COMMAND [options]

tasks:
  t2i    text to image: demo, train, sample, evaluate, interpolate, arithmetic, import

`crossflow t2i --help` lists a task's commands, `crossflow t2i sample --help` a command's options.
"""
TASKS = ("t2i",)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 when it did its work, 2 when the user can repair what went wrong."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run a command and return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    task, *rest = arguments
    if task not in TASKS:
        return _complain(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    return _run_task(task, rest)


def _run_task(task: str, arguments: list[str]) -> int:
    import importlib

    import torch
    import tyro

    from cf_apps.data.captioned import DataError
    from cf_apps.engine.errors import UserError

    commands = importlib.import_module(f"cf_apps.{task}.cli").COMMANDS
    config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    command = tyro.extras.subcommand_cli_from_dict(
        commands, prog=f"crossflow {task}", args=arguments or ["--help"], config=config
    )
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
