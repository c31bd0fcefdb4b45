"""Compile the kernels for sm_90 (H100, H200) with no GPU, and read from the result what a GPU would run.

    python packages/cf-transformer/tests/aot/compile_for_sm90.py [--only WORD ...] [--write-baseline] [--dump FOLDER]

A case calls a launcher of the package; what it launches is recorded instead of run and then compiled as the JIT would:
Triton -> PTX -> machine code, by the assembler in the triton wheel. Reported are the registers, spills and shared
memory that the assembler gives a kernel, and from the PTX how wide it loads and by which instructions it multiplies
matrices: wgmma (HGMMA in machine code) is what Hopper's tensor cores are made for, mma the older and slower way.

Budgets hold for every version of Triton. Registers and shared memory differ between versions, so they are compared with
a baseline file per version, where there is one. To check another version with the same Python:

    uv pip install --no-deps --target FOLDER triton==3.6.0
    PYTHONPATH=FOLDER python packages/cf-transformer/tests/aot/compile_for_sm90.py
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

HERE = Path(__file__).parent
ARCH = 90
SHARED_MEMORY = 227 * 1024  # bytes a block may have on sm_90
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
TYPE_NAMES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
}


# ------------------------------------------------------------------------------------------------ what is launched


@dataclass(frozen=True)
class Launch:
    """One kernel launch: the kernel, its arguments by name, and its compile options."""

    kernel: JITFunction
    arguments: dict[str, Any]
    options: dict[str, Any]


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Kernels launched inside are put on the list and not run."""
    launches: list[Launch] = []

    def record(self: JITFunction, *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        options = {key: named.pop(key) for key in OPTIONS if key in named}
        launches.append(Launch(self, dict(zip(self.arg_names, args, strict=False)) | named, options))

    run, JITFunction.run = JITFunction.run, record
    try:
        yield launches
    finally:
        JITFunction.run = run


def argument_type(value: Any) -> str:
    """The type that the JIT gives a run-time argument."""
    if isinstance(value, Tensor):
        return "*" + TYPE_NAMES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    raise TypeError(f"a kernel takes tensors, floats and integers, got {value!r}")


def source(launch: Launch) -> ASTSource:
    """The kernel specialised as the JIT does it: None and 1 are constants, multiples of 16 are known as such."""
    names, arguments = launch.kernel.arg_names, launch.arguments
    fixed = {names[i] for i in launch.kernel.constexprs}
    fixed |= {
        name for name, value in arguments.items() if value is None or (type(value) is int and value == 1)
    }
    signature = {n: "constexpr" if n in fixed else argument_type(arguments[n]) for n in names}
    sixteen = [["tt.divisibility", 16]]
    attributes = {
        (i,): sixteen
        for i, n in enumerate(names)
        if n not in fixed and (isinstance(arguments[n], Tensor) or arguments[n] % 16 == 0)
    }
    constants = {n: arguments[n] for n in names if n in fixed}
    return ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)


# ------------------------------------------------------------------------------------------------- what comes out


@dataclass(frozen=True)
class Report:
    """What the assembler and the PTX say of one kernel. Sizes in bytes, the rest are counts of instructions."""

    registers: int
    spills: int
    shared: int
    wgmma: int
    mma: int
    loads: int
    loads_16_bytes: int
    widest_load: int
    serialised: bool


def compiled(launches: Mapping[str, Launch]) -> dict[str, tuple[Report, Any]]:
    """Every launch compiled for sm_90: its report, and the kernel with the text of all stages."""
    target = GPUTarget("cuda", ARCH, 32)
    with ThreadPoolExecutor() as pool:  # assembles again, for the log, while the next one is compiled
        running = {}
        for name, launch in launches.items():
            kernel = triton.compile(source(launch), target=target, options=launch.options)
            running[name] = pool.submit(read, kernel.asm["ptx"], kernel.metadata.shared), kernel
        return {name: (report.result(), kernel) for name, (report, kernel) in running.items()}


def read(ptx: str, shared: int) -> Report:
    """The report of a kernel from its PTX."""
    log, loads = assembler_log(ptx), load_widths(ptx)
    return Report(
        registers=_number(r"Used (\d+) registers", log),
        spills=_number(r"(\d+) bytes spill stores", log) + _number(r"(\d+) bytes spill loads", log),
        shared=shared,
        wgmma=len(re.findall(r"\bwgmma\.mma_async", ptx)),
        mma=len(re.findall(r"\bmma\.sync", ptx)),
        loads=len(loads),
        loads_16_bytes=sum(width >= 16 for width in loads),
        widest_load=max(loads),
        serialised="C7510" in log or "instructions are serialized" in log,
    )


def load_widths(ptx: str) -> list[int]:
    """Bytes that a thread loads from global memory, for every such instruction; copies to shared memory count too."""
    plain = re.findall(r"\bld\.global[\w.:]*?(?:\.v(\d))?\.[bfsu](\d+)\s", ptx)
    copies = re.findall(r"\bcp\.async\.c[ag]\.shared\.global[\w.:]* \[[^]]*\], \[[^]]*\], (\w+)", ptx)
    return [int(vector or 1) * int(bits) // 8 for vector, bits in plain] + [int(size, 0) for size in copies]


def assembler_log(ptx: str) -> str:
    """What ptxas says of PTX under -v, by the assembler that Triton uses for sm_90."""
    target = re.search(r"\.target\s+(\w+)", ptx)
    assert target, "the PTX names no target"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.ptx")
        file.write_text(ptx)
        command = [get_ptxas(ARCH).path, "-v", f"--gpu-name={target[1]}", file, "-o", file.with_suffix(".o")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


# ---------------------------------------------------------------------------------------------------- the verdict


@dataclass(frozen=True)
class Budget:
    """What a kernel promises of its machine code, whatever the version of Triton. Loads and spills in bytes."""

    tensor_cores: bool = False
    widest_load: int = 4
    spills: int = 0


def complaints(report: Report, budget: Budget) -> list[str]:
    """Where a report breaks its budget."""
    found = {
        f"{report.spills} bytes are spilled, {budget.spills} allowed": report.spills > budget.spills,
        f"{report.shared} bytes of shared memory": report.shared > SHARED_MEMORY,
        "no tensor-core instruction": budget.tensor_cores and not report.wgmma,
        "tensor-core instructions of the older kind": report.mma > 0,
        "tensor-core instructions are serialised": report.serialised,
        f"no load is wider than {report.widest_load} bytes": report.widest_load < budget.widest_load,
    }
    return [complaint for complaint, holds in found.items() if holds]


def regressions(report: Report, before: dict[str, int]) -> list[str]:
    """Where a report is worse than the baseline, beyond what a harmless change of code moves."""
    found = {
        "registers": report.registers > 1.15 * before["registers"] + 4,
        "shared": report.shared > 1.1 * before["shared"] + 1024,
        "wgmma": report.wgmma < before["wgmma"],
        "loads_16_bytes": report.loads_16_bytes < before["loads_16_bytes"],
    }
    now = asdict(report)
    return [f"{name} was {before[name]}, is {now[name]}" for name, worse in found.items() if worse]


def baseline_file() -> Path:
    """The baseline of the installed Triton; there may be none."""
    return HERE / f"baseline_{'.'.join(triton.__version__.split('.')[:2])}.json"


def read_baseline() -> dict[str, dict[str, int]]:
    """Reports by case, empty for a version of Triton that has no baseline."""
    return json.loads(baseline_file().read_text()) if baseline_file().exists() else {}


# --------------------------------------------------------------------------------------------------- command line


def main() -> int:
    """Compile the chosen cases and print a line for each; 1 if any breaks its budget or got worse, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="cases whose name has one of these in it"
    )
    parser.add_argument(
        "--write-baseline", action="store_true", help="keep the results as those of this Triton version"
    )
    parser.add_argument(
        "--dump", type=Path, metavar="FOLDER", help="write the TTGIR and PTX of each case here"
    )
    options = parser.parse_args()
    from cases import cases  # it imports this file

    chosen = {name: case for name, case in cases().items() if any(word in name for word in options.only)}
    before, reports, failed = read_baseline(), {}, 0
    print(f"Triton {triton.__version__}, sm_{ARCH}, {len(chosen)} cases, baseline of {len(before)}")
    for name, (report, kernel) in compiled({name: case.launch for name, case in chosen.items()}).items():
        found = complaints(report, chosen[name].budget)
        if name in before and not options.write_baseline:
            found += regressions(report, before[name])
        failed += bool(found)
        reports[name] = asdict(report)
        print(line(name, report), *(f"FAILS: {complaint}" for complaint in found), flush=True)
        for stage in ("ttgir", "ptx") if options.dump else ():
            options.dump.mkdir(parents=True, exist_ok=True)
            (options.dump / f"{name.replace(' ', '_')}.{stage}").write_text(kernel.asm[stage])
    if options.write_baseline:
        kept = {name: (before | reports)[name] for name in cases() if name in before | reports}
        rows = (f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in kept.items())
        baseline_file().write_text("{\n" + ",\n".join(rows) + "\n}\n")
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return int(failed > 0)


def line(name: str, report: Report) -> str:
    """A report in one line."""
    wide = f"{report.loads_16_bytes:3} of {report.loads:3} loads 16 bytes wide"
    return (
        f"{name:46} {report.registers:3} registers {report.spills:4} spilled {report.shared / 1024:5.1f} KB"
        f" {report.wgmma:3} wgmma {wide}"
    )


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        sys.exit("unset TRITON_INTERPRET: an interpreted kernel cannot be compiled")
    sys.modules["compile_for_sm90"] = sys.modules["__main__"]  # cases import it by name
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("TRITON_CACHE_DIR", cache)
        sys.exit(main())
