"""The kernels as a GPU would run them, checked without one; see compile_for_sm90.py.

Another version of Triton is checked by the same tests, found first: PYTHONPATH=FOLDER pytest -m aot. CF_TRITON says
which one it is meant to be.
"""

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytestmark = pytest.mark.aot
SCENES = ("td_norm", "time_lerp", "gated", "concat_norm", "attention", "qk_norm_rope")
MAKES_A_BASELINE = "python packages/cf-transformer/tests/aot/compile_for_sm90.py --write-baseline"


@pytest.fixture(scope="module")
def aot():
    """The machinery; only here, because importing it imports triton."""
    pytest.importorskip("triton")
    from cf_transformer.kernels import dispatch

    if dispatch.interpreted():
        pytest.skip(
            "this process interprets kernels (TRITON_INTERPRET=1), so it cannot compile them: nox -s aot"
        )
    import compile_for_sm90

    return compile_for_sm90


@pytest.fixture(scope="module")
def cases(aot):
    import cases

    return cases


@pytest.mark.parametrize("scene", SCENES)
def test_machine_code_keeps_its_budget_and_is_no_worse_than_before(scene, aot, cases):
    """No spills, loads as wide as rows allow, tensor cores for attention; registers and shared memory as committed."""
    chosen = {name: case for name, case in cases.cases().items() if name.startswith(f"{scene}.")}
    before, found = aot.read_baseline(), {}
    for name, (report, _) in aot.compiled({name: case.launch for name, case in chosen.items()}).items():
        found[name] = aot.complaints(report, chosen[name].budget)
        if name in before:
            found[name] += aot.regressions(report, before[name])
    assert {name: complaints for name, complaints in found.items() if complaints} == {}


def test_it_is_the_triton_that_was_asked_for(aot):
    import triton

    assert triton.__version__ == os.environ.get("CF_TRITON", triton.__version__)


def test_every_kernel_is_compiled(cases):
    compiled = {name.partition(" ")[0] for name in cases.cases()}
    assert compiled == set(cases.kernels())
    assert {name.partition(".")[0] for name in compiled} == set(cases.SCENES) == set(SCENES)


def test_every_row_of_the_table_of_tiles_is_compiled(cases):
    assert set(cases.table()) == {cases.row_of(kernel) for kernel in cases.kernels()}
    rows = sum(len(rows) for rows in cases.table().values())
    assert len(cases.of_table()) == rows


def test_a_case_is_launched_as_the_package_launches_it(cases):
    launch = cases.cases()["attention.forward 64 bfloat16"].launch
    fixed = {
        "E": 64,
        "EP": 64,
        "S_H": 64,
        "APART": 1,
        "EVEN": True,
        "n": 257,
        "heads": 16,
        "s_n": 3 * 16 * 64,
    }
    assert {name: launch.arguments[name] for name in fixed} == fixed
    assert launch.options["num_warps"] == 8


def test_arguments_are_specialised_as_the_jit_does_it(aot, cases):
    source = aot.source(cases.cases()["attention.forward 64 bfloat16"].launch)
    names = source.fn.arg_names
    assert [source.signature[n] for n in ("QKV", "LSE", "s_n", "n", "E")] == [
        "*bf16",
        "*fp32",
        "i32",
        "i32",
        "constexpr",
    ]
    known = {names[index] for (index,) in source.attrs}
    assert known == {"QKV", "OUT", "LSE", "s_b", "s_n", "s_c", "heads"}  # 257 is no multiple of 16


def test_every_committed_baseline_names_the_cases_there_are(cases):
    files = sorted(Path(__file__).parent.glob("baseline_*.json"))
    assert {file.stem for file in files} >= {"baseline_3.6", "baseline_3.9"}
    for file in files:
        assert set(json.loads(file.read_text())) == set(cases.cases()), (
            f"{file.name} is stale: {MAKES_A_BASELINE}"
        )


def test_a_tile_that_does_not_fit_its_registers_is_caught(aot, cases):
    """dK and dV of 128 keys by 4 warps: twice the tile that the table gives them."""
    launch = cases.cases()["attention.backward_kv 64 bfloat16"].launch
    greedy = replace(launch, arguments=launch.arguments | {"COLUMNS": 128})
    report, _ = aot.compiled({"greedy": greedy})["greedy"]
    complaints = aot.complaints(report, aot.Budget(tensor_cores=True))
    assert any("spilled" in complaint for complaint in complaints)


def test_widths_of_loads_are_read_from_ptx(aot):
    ptx = """
    ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
    @%p1 ld.global.L1::evict_first.v2.b32 { %r5, %r6 }, [ %rd2 + 0 ];
    @%p2 ld.global.b16 { %rs1 }, [ %rd3 + 0 ];
    ld.shared.v4.b32 { %r7, %r8, %r9, %r10 }, [ %r11 ];
    cp.async.cg.shared.global [ %r12 + 0 ], [ %rd4 + 0 ], 0x10, 0x10;
    @%p3 cp.async.ca.shared.global [ %r13 + 0 ], [ %rd5 + 0 ], 0x8, %r14;
    """
    assert aot.load_widths(ptx) == [16, 8, 2, 16, 8]


def test_every_kind_of_bad_machine_code_is_a_complaint(aot):
    good = aot.Report(
        registers=100, spills=0, shared=65536, wgmma=8, mma=0, loads=9, loads_16_bytes=5, widest_load=16,
        serialised=False,
    )  # fmt: skip
    budget = aot.Budget(tensor_cores=True, widest_load=16)
    assert aot.complaints(good, budget) == []
    for worse, word in [
        ({"spills": 8}, "spilled"),
        ({"shared": 228 * 1024}, "shared memory"),
        ({"wgmma": 0}, "no tensor-core"),
        ({"mma": 4}, "older kind"),
        ({"serialised": True}, "serialised"),
        ({"widest_load": 8}, "wider than 8 bytes"),
    ]:
        (complaint,) = aot.complaints(replace(good, **worse), budget)
        assert word in complaint
    assert aot.complaints(replace(good, wgmma=0), aot.Budget()) == []


def test_what_got_worse_than_the_baseline_is_named_and_what_got_better_is_not(aot):
    before = {"registers": 100, "shared": 32768, "wgmma": 8, "loads_16_bytes": 5}
    report = aot.Report(**dict.fromkeys(aot.Report.__dataclass_fields__, 0) | before)
    assert asdict(report)["registers"] == 100
    assert aot.regressions(report, before) == []
    better = replace(report, registers=80, shared=0, wgmma=16, loads_16_bytes=9)
    assert aot.regressions(better, before) == []
    for worse in ({"registers": 130}, {"shared": 40000}, {"wgmma": 4}, {"loads_16_bytes": 2}):
        ((name, now),) = worse.items()
        assert aot.regressions(replace(report, **worse), before) == [f"{name} was {before[name]}, is {now}"]
