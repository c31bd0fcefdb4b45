"""Java, for the tools that exist only as a jar: found and tried before any work starts, killed when done."""

import atexit
import importlib.util
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

# Numbers with a decimal point and UTF-8, whatever the machine's language.
PLAIN_LOCALE = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")


def find_java(java: str | Path = "java") -> str:
    """The path of a Java that runs. RuntimeError when there is none or it does not start."""
    found = shutil.which(str(java))
    if found is None:
        raise RuntimeError(
            f"no Java at {str(java)!r}; install a Java runtime (8 or later) or pass java=, the path of one"
        )
    tried = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    if tried.returncode:
        said = (tried.stderr or tried.stdout).strip().splitlines()
        raise RuntimeError(
            f"{found} does not run (exit code {tried.returncode}: {said[0] if said else 'nothing said'}); "
            "pass java=, the path of a Java that does"
        )
    return found


def find_jar(jar: str | Path | None, inside: str, name: str) -> Path:
    """A jar named by the user, or the one pycocoevalcap carries at `inside`. FileNotFoundError when it is not there."""
    if jar is not None:
        path = Path(jar)
        if not path.is_file():
            raise FileNotFoundError(f"no {name} jar at {path}; pass the path of the .jar file")
        return path.resolve()
    found = importlib.util.find_spec("pycocoevalcap")
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        if (path := Path(folder) / inside).is_file():
            return path.resolve()
    raise FileNotFoundError(
        f"no {name} jar was named and none is installed; pass its path, or pip install pycocoevalcap, which carries it"
    )


class JavaProcess:
    """A Java program that answers a line with a line. Started by the first question, ended by `close` and at exit."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.process: subprocess.Popen[str] | None = None

    def ask(self, line: str) -> str:
        """One line in, one line out. RuntimeError when the program has ended."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
            atexit.register(self.close)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self.process.wait()
            raise RuntimeError(f"{' '.join(self.command)} ended (exit code {code}) at the line {line!r}")
        return answer.strip()

    def close(self) -> None:
        """End the program. A later question starts it again."""
        atexit.unregister(self.close)
        if self.process is None:
            return
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                # what was not yet written to a dead program
                with suppress(BrokenPipeError):
                    stream.close()
        self.process.wait()
        self.process = None
