"""The package as a whole: its public names, its floors, and its documents held to what they say."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import syncframe

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "syncframe"
FLOORS = [
    "errors words", "schema secrets", "texts", "operation query wire progress", "file layout conflict frame", "diff store backends rules keys",
    "learn", "stage", "undo resolve decisions typed sheet", "queue sides", "views pages", "editor", "push", "pull remote plan", "session", "table remote_table", "context", "widget", "server", "demo testing", "cli",
]  # fmt: skip
ENTRANCES = {"__init__", "__main__"}  # the doors: they may import every room


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports, for types alone or within a function too."""
    parts = ("syncframe", *path.relative_to(PACKAGE).parts[:-1])
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (stem, node.module) if part)
            names = [module] if node.module else [f"{module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("syncframe.")}
    return rooms


def test_every_import_goes_down():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names.split()}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in ENTRANCES:
            continue
        for target in imported_rooms(path):
            assert target == room or floor[target] < floor[room], f"{room} imports {target}"


def test_the_floors_name_every_room_and_no_other():
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}

    assert {name for names in FLOORS for name in names.split()} == rooms - ENTRANCES - {"__pycache__"}


def test_no_procedure_imports_a_concrete_back_end():
    for name in ("push", "pull", "queue", "store", "session", "table"):
        text = (PACKAGE / f"{name}.py").read_text()
        assert not re.search(r"from \.backends\.(?!base)", text), name


def test_public_names_are_complete_and_sorted():
    assert syncframe.__all__ == sorted(syncframe.__all__)
    assert all(hasattr(syncframe, name) for name in syncframe.__all__)


@pytest.mark.parametrize("name", [n for n in syncframe.__all__ if n != "__version__"])
def test_every_public_name_and_method_says_what_it_is(name):
    thing = getattr(syncframe, name)

    assert inspect.getdoc(thing)
    if inspect.isclass(thing) and issubclass(thing, (syncframe.SyncContext, syncframe.SyncTable)):
        for member, value in vars(thing).items():
            plain = not member.startswith("_") and member not in ("name", "key", "columns", "pending", "conflicts")
            assert not plain or inspect.getdoc(value), f"{name}.{member}"


def test_the_package_s_example_runs():
    assert doctest.testmod(syncframe).failed == 0


@pytest.mark.parametrize("place, pushed", [("in a notebook", 521), ("## A table of your own", 1)])
def test_the_readme_s_ten_lines_run_in_an_empty_folder(tmp_path, place, pushed):
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", readme[readme.index(place) :], re.DOTALL)[1]
    code += "\nprint(ctx.history[['action', 'rows']].values.tolist(), len(ctx.pending))"

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert f"PushResult: {pushed} accepted, 0 conflicts, 0 rejected" in code
    assert done.stdout.endswith(f"['push', {pushed}]] 0\n")


def test_the_check_calls_the_readme_s_test_command():
    commands = re.findall(r"```sh\n(python3 .*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    check = (ROOT / ".ci" / "run").read_text()

    assert commands[0].endswith("syncframe demo --check")
    assert commands[1] == 'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/pytest'
    assert commands[1] in check
