"""The house: imports go one way, and the rooms stay rooms."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Each room may import from the rooms named here, and from itself.
MAY_IMPORT = {
    "models": set(),
    "transport": set(),
    "governance": {"models", "transport"},
    "haproxy": {"governance", "models", "transport"},
    "actors": {"haproxy", "governance", "models", "transport"},
    "shadow": {"actors", "haproxy", "governance", "models", "transport"},
}
#: What a node must not load: each costs over a second and hundreds of MB.
TRAINING_LIBRARIES = {"sklearn", "lightgbm", "pandas", "scipy", "joblib"}
#: What compares shadows with champions may load scipy: nothing imports these before a report is asked for.
REPORT_FILES = {f"shadow/{name}.py" for name in ("statistics", "labelled", "slices")}
#: What the client may use beyond the standard library.
CLIENT_LIBRARIES = {"zmq", "msgpack"}


def imports(file: Path) -> set[str]:
    """Return the absolute modules that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def roots(file: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(file)}


def module_level_roots(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_from_the_rooms_below_it(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        wrong = (roots(file) & set(MAY_IMPORT)) - MAY_IMPORT[room] - {room}
        assert not wrong, f"{file} imports from {wrong}"
        assert not roots(file) & {"run", "examples", "benchmarks", "tests"}, file


def test_only_the_transport_room_and_the_wiring_of_a_node_know_zeromq() -> None:
    allowed = {
        "actors/node.py",
        "actors/serving.py",
        "actors/preprocessor.py",
        "actors/health.py",
        "actors/gateway/actor.py",
        "actors/gateway/upstream.py",
    }  # they pass the context on
    for room in MAY_IMPORT:
        for file in (ROOT / room).rglob("*.py"):
            name = str(file.relative_to(ROOT))
            if room != "transport" and name not in allowed:
                assert "zmq" not in roots(file), name


def test_nothing_on_the_hot_path_reaches_for_postgres_or_a_disk() -> None:
    hot = ["preprocessor", "reading", "call", "scorer", "serving", "state", "evaluation", "tally"]
    files = [ROOT / "actors" / f"{name}.py" for name in hot]
    files += [file for room in ("transport", "actors/gateway") for file in (ROOT / room).rglob("*.py")]
    for file in files:
        assert not roots(file) & {"psycopg", "governance", "confluent_kafka", "sqlite3"}, file


def test_what_governance_decides_goes_by_the_clock_of_the_database_alone() -> None:
    # Partitions by day, and when a model was trained: neither orders anything.
    allowed = {"transactions.py", "training.py"}
    for file in (ROOT / "governance").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if file.name not in allowed:
            assert not re.search(r"time\.time\(|time_ns\(|datetime\.now\(|utcnow\(|date\.today\(", text), file


def test_the_client_needs_nothing_of_the_house_and_two_libraries() -> None:
    for file in (ROOT / "transport" / "client").rglob("*.py"):
        extra = {"opentelemetry"} if file.name == "traces.py" else set()
        assert roots(file) <= set(sys.stdlib_module_names) | CLIENT_LIBRARIES | extra, file


def test_neither_a_client_nor_a_node_loads_opentelemetry_before_it_is_told_to() -> None:
    code = (
        "import sys, actors.node, transport.client as c; c.Client('tcp://127.0.0.1:1').close();"
        "print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_no_room_loads_a_training_library_before_it_is_asked_to_import_a_model() -> None:
    for room in MAY_IMPORT:
        for file in (ROOT / room).rglob("*.py"):
            heavy = TRAINING_LIBRARIES - ({"scipy"} if str(file.relative_to(ROOT)) in REPORT_FILES else set())
            assert not module_level_roots(file) & heavy, file


def test_the_command_line_loads_what_is_heavy_only_where_it_is_needed() -> None:
    heavy = {"scipy.stats", "matplotlib", "jinja2", "sklearn", "numba", "confluent_kafka"}
    code = f"import run, sys; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_file_says_in_one_docstring_what_lives_there() -> None:
    for room in MAY_IMPORT:
        for file in (ROOT / room).rglob("*.py"):
            assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


def test_files_and_functions_stay_of_a_size_that_fits_in_the_head() -> None:
    for room in MAY_IMPORT:
        for file in (ROOT / room).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert text.count("\n") <= 400, file
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno is not None
                    assert node.end_lineno - node.lineno < 80, f"{file}: {node.name}"


def test_nothing_that_serves_waits_by_the_wall_clock() -> None:
    # Which jumps. These tell the time, to whoever reads of it later.
    told = {"actors/blackbox.py", "actors/preprocessor.py", "actors/top/screen.py", "transport/metrics.py"}
    allowed = {*told, "actors/traces.py", "actors/doctor/database.py"}  # the latter compares clocks
    looks = re.compile(r"\btime\.time(_ns)?\(|\bdatetime\.(now|utcnow|today)\(|\bfrom time import\b")
    files = [file for room in ("actors", "haproxy", "transport") for file in (ROOT / room).rglob("*.py")]
    found = {str(file.relative_to(ROOT)) for file in files if looks.search(file.read_text(encoding="utf-8"))}
    assert found == allowed
