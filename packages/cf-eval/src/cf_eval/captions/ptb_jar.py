"""The original tokenizer of COCO's caption metrics: Stanford CoreNLP 3.4.1 as a jar, for who has Java and wants it."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cf_eval.captions.java import PLAIN_LOCALE, find_jar, find_java
from cf_eval.captions.ptb_tokenizer import kept, one_line

INSIDE = "tokenizer/stanford-corenlp-3.4.1.jar"
MAIN = "edu.stanford.nlp.process.PTBTokenizer"


class JarTokenizer:
    """Callable on captions, gives rows of tokens. Java and the jar are looked for at once, not at the first caption.

    jar: a Stanford CoreNLP 3.4.1 jar, or None for the one in pycocoevalcap. RuntimeError without a Java that runs,
    FileNotFoundError without the jar.
    """

    def __init__(self, jar: str | Path | None = None, java: str | Path = "java") -> None:
        self.jar = find_jar(jar, INSIDE, "Stanford CoreNLP 3.4.1")
        self.java = find_java(java)

    def __call__(self, captions: Sequence[str]) -> list[list[str]]:
        """The tokens of each caption. RuntimeError when the jar fails or returns another number of rows."""
        if not captions:
            return []
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "captions.txt"
            file.write_text("\n".join(map(one_line, captions)), encoding="utf-8", newline="\n")
            command = [
                self.java,
                *PLAIN_LOCALE,
                "-cp",
                str(self.jar),
                MAIN,
                "-preserveLines",
                "-lowerCase",
                str(file),
            ]
            done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise RuntimeError(
                f"{' '.join(command)} failed (exit code {done.returncode}): {said[-1] if said else 'nothing said'}"
            )
        rows = done.stdout.decode().split("\n")
        # the jar ends every row, the last one too if it is not empty
        rows = rows[:-1] if len(rows) == len(captions) + 1 and not rows[-1].strip() else rows
        if len(rows) != len(captions):
            raise RuntimeError(
                f"the tokenizer returned {len(rows)} rows for {len(captions)} captions, so that captions and images "
                "would no longer belong together; look for line ends of an unusual kind"
            )
        return [kept(row) for row in rows]
