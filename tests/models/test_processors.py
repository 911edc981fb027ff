"""The kernel on other processors: without vector instructions it runs, for arm64 its code is looked at."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.forest import Forest
from models.importers import import_model
from tests.models.conftest import rows_for

ROOT = Path(__file__).parents[2]

#: Prints scores, and the kernel's code for arm64.
ELSEWHERE = r"""
import json, re, sys
import llvmlite.binding as llvm
import numpy as np
from models import kernel
from models.bundle import open_bundle
from models.forest import Forest

scores = Forest(open_bundle(sys.argv[1])).predict(np.load(sys.argv[2]))
code = kernel.predict.inspect_llvm(kernel.predict.signatures[0])
# How memory is given back is all that Numba has written for this very processor.
code = re.sub(r"= (tail )?call i8 @llvm\.x86\.atomic\.sub\.cc\.i\d+\([^)]*\)( #\d+)?", "= add i8 0, 1", code)
code = re.sub(r'target triple = ".*"', 'target triple = "aarch64-unknown-linux-gnu"', code)
code = re.sub(r'target datalayout = ".*"|"target-cpu"="[^"]*"|"target-features"="[^"]*"', "", code)
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(opt=3)
module = llvm.parse_assembly(code)
module.verify()
print(json.dumps({"scores": scores.tobytes().hex(), "arm64": machine.emit_assembly(module)}))
"""


@pytest.fixture(scope="module")
def rows(forest_model: Any) -> Any:
    return rows_for(forest_model)[:500]


@pytest.fixture(scope="module")
def elsewhere(forest_model: Any, rows: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("elsewhere")
    np.save(directory / "rows.npy", rows)
    import_model(forest_model, directory / "m.bundle")
    # Without the variables, Numba compiles for this very processor.
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(directory)}
    command = [sys.executable, "-c", ELSEWHERE, str(directory / "m.bundle"), str(directory / "rows.npy")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **plain}, capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_processor_without_vector_instructions_gives_the_same_bits(
    elsewhere: dict[str, str], bundle: Any, rows: Any
) -> None:
    assert bytes.fromhex(elsewhere["scores"]) == Forest(bundle).predict(rows).tobytes()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the code is made from that of this processor")
def test_the_code_for_arm64_has_vectors_and_rounds_as_this_one(elsewhere: dict[str, str]) -> None:
    code = elsewhere["arm64"]
    found = {line.split()[0] for line in code.splitlines() if line.startswith("\t") and line.split()}
    # Eight comparisons in two instructions, the exits that are left, the next line asked for.
    assert {"fcmgt", "and", "cnt", "clz", "prfm"} <= found
    # A product and a sum rounded once are another number.
    assert not {"fmadd", "fmla", "fmsub", "fmls"} & found
