"""SPICE by the authors' jar: how many objects, attributes and relations of the references a caption states.

Only the way in and out is here. The jar needs Stanford CoreNLP 3.6.0 with its models in a `lib` folder beside it, and
is reported to fail on Java 17 and later. (Anderson et al. 2016; CrossFlow table 4)
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cf_eval.captions.java import PLAIN_LOCALE, find_jar, find_java
from cf_eval.captions.ngrams import check_pairs
from cf_eval.captions.scores import Scores, mean_score

INSIDE = "spice/spice-1.0.jar"


class Spice:
    """Scores captions with the SPICE 1.0 jar.

    jar: spice-1.0.jar, or None for the one in pycocoevalcap (which does not carry the models). cache: a folder where
    parsed references are kept between calls; None for one that is thrown away. timeout: seconds for one call.
    """

    def __init__(
        self,
        jar: str | Path | None = None,
        java: str | Path = "java",
        memory: str = "8G",
        cache: str | Path | None = None,
        timeout: float | None = None,
    ) -> None:
        self.jar = find_jar(jar, INSIDE, "SPICE 1.0")
        self.java = find_java(java)
        self.memory, self.cache, self.timeout = memory, cache, timeout

    def __call__(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        """SPICE, 0 to 1, for each caption; the corpus value is their mean.

        RuntimeError when the jar fails, or gives a caption no score (peers make that NaN, and the mean with it).
        """
        check_pairs(candidates, references)
        pairs = zip(candidates, references, strict=True)
        rows = [{"image_id": i, "test": test, "refs": list(refs)} for i, (test, refs) in enumerate(pairs)]
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = Path(folder) / "captions.json", Path(folder) / "scores.json"
            cache = Path(self.cache or Path(folder) / "cache")
            cache.mkdir(parents=True, exist_ok=True)
            asked.write_text(json.dumps(rows), encoding="utf-8")
            self._run(
                [str(asked), "-cache", str(cache), "-out", str(answered), "-subset", "-silent"], answered
            )
            found = {
                row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(answered.read_text("utf-8"))
            }
        missing = [i for i in range(len(rows)) if found.get(i) is None]
        if missing:
            first = rows[missing[0]]["test"]
            raise RuntimeError(f"SPICE gave no score to {len(missing)} captions, the first {first!r}")
        return mean_score("spice", np.array([float(found[i]) for i in range(len(rows))]))

    def _run(self, arguments: list[str], answered: Path) -> None:
        # the jar looks for its models in ./lib
        command = [self.java, f"-Xmx{self.memory}", *PLAIN_LOCALE, "-jar", str(self.jar), *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=self.jar.parent,
                capture_output=True,
                text=True,
                check=False,
                timeout=self.timeout,
            )
        except subprocess.TimeoutExpired as late:
            raise RuntimeError(f"SPICE took longer than {self.timeout} s; pass a longer timeout=") from late
        if done.returncode or not answered.is_file():
            said = done.stderr.strip().splitlines()
            raise RuntimeError(
                f"SPICE failed (exit code {done.returncode}): {said[0] if said else 'nothing said'}; it needs Stanford "
                f"CoreNLP 3.6.0 and its models in {self.jar.parent / 'lib'}, and Java 8 or 11 (java=)"
            )
