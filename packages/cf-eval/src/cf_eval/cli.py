"""`cf-eval COMMAND`: the command line. Errors a user can repair are one line and exit code 2."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Command(NamedTuple):
    """Where a command is, and what it does, for the list of them. It is imported only when it is called."""

    module: str
    name: str
    summary: str


COMMANDS: Mapping[str, Command] = {
    "fid": Command("cli_images", "Fid", "FID of two folders of pictures, or of saved statistics"),
    "fd": Command("cli_images", "Fd", "Fréchet distance in the space of another network"),
    "kid": Command("cli_images", "Kid", "kernel distance"),
    "prdc": Command("cli_images", "Prdc", "precision, recall, density, coverage"),
    "cmmd": Command("cli_images", "Cmmd", "CMMD of CLIP embeddings"),
    "clip-score": Command("cli_clip", "ClipScoreCommand", "how well pictures fit their captions"),
    "captions": Command("cli_captions", "Captions", "BLEU, CIDEr-D, ROUGE-L; METEOR and SPICE with Java"),
    "depth": Command("cli_depth", "Depth", "depth maps against the truth, by a named protocol"),
    "geneval": Command("cli_geneval", "GenEvalCommand", "GenEval's six tasks from saved detections"),
}


def usage() -> str:
    """What `cf-eval --help` prints."""
    lines = [f"  {name:<12}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "cf-eval: numbers with their protocol",
            "",
            "usage: cf-eval COMMAND [options]",
            "",
            "commands:",
            *lines,
            "",
            "`cf-eval fid --help` lists a command's options; each takes --json OUT for the result as JSON.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 when it did its work, 2 when the user can repair what went wrong."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run a command and return the exit code. Wrong options end in a SystemExit of tyro, with code 2 too."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        return _complain(f"unknown command {name!r}; known: {', '.join(COMMANDS)}")
    try:
        command = _parsed(name, rest)
    except ImportError as error:
        return _complain(str(error))
    return _finished(command)


def _finished(command: Any) -> int:
    import torch

    try:
        command.run()
    except (ValueError, OSError, ImportError) as error:
        return _complain(str(error))
    except torch.OutOfMemoryError as error:
        return _complain(
            f"out of memory: {str(error).splitlines()[0]}; use a smaller --batch-size, or --device cpu"
        )
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _parsed(name: str, arguments: list[str]) -> Any:
    """The command with its options. ImportError without the libraries of the command line."""
    try:
        import rich  # noqa: F401
        import tyro
    except ImportError as error:
        raise ImportError(
            f'the command line needs rich and tyro: pip install "cf-eval[cli]" ({error})'
        ) from None
    command = COMMANDS[name]
    kind = getattr(importlib.import_module(f"cf_eval.{command.module}"), command.name)
    config = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(kind, prog=f"cf-eval {name}", args=arguments or ["--help"], config=config)


def _complain(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
