"""Every notebook runs from top to bottom, in a folder of its own, against the server that it starts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from postgres import Server

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


ALL = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module")
def ran(request, tmp_path_factory, postgres: Server) -> nbformat.NotebookNode:
    """A notebook after it has run from top to bottom."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(shutil.copy(NOTEBOOKS / request.param, folder), as_version=4)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("POSTGRES_URL", postgres.url)
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


@pytest.mark.parametrize("ran", ALL, indirect=True)
def test_a_notebook_says_nothing_on_standard_error(ran):
    said = [output.text for cell in ran.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"]

    assert said == []


@pytest.mark.parametrize("ran", ["01_quickstart.ipynb"], indirect=True)
def test_the_quickstart_has_twelve_cells_of_one_screen_and_ends_with_nothing_left(ran):
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]

    shown = ["".join(str(output.get("data", {}).get("text/plain", "")) for output in cell.outputs) for cell in cells]
    assert len(cells) == 12
    assert max(len(cell.source.splitlines()) for cell in cells) <= 6
    assert max(len(text.splitlines()) for text in shown) <= 30
    assert "27,004" in shown[1] or "27004" in shown[1]
    assert "0 deletes, 0 inserts, 521 updates" in shown[3]
    assert "521 accepted, 0 conflicts, 0 rejected" in shown[6]
    assert "0 accepted, 1 conflicts, 0 rejected" in shown[8]
    assert "gate changed" in shown[9] and "crew late" in shown[9]
    (flights,) = [line for line in shown[11].splitlines() if line.startswith("flights ")]
    assert flights.split()[1:5] == ["27,004", "0", "0", "0"]


@pytest.mark.parametrize("ran", ["02_conflicts.ipynb"], indirect=True)
def test_the_page_on_conflicts_meets_every_kind_and_both_people_end_with_the_same(ran):
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]

    shown = "\n".join(text_of(cell) for cell in cells)
    assert max(len(cell.source.splitlines()) for cell in cells) <= 9
    assert "... and 6 more (plan.at_risk has all)" in shown
    assert "0 accepted, 9 conflicts, 0 rejected" in shown
    for words in ("changed on both sides", "you have deleted it, they have changed it",
                  "you have changed it, they have deleted it", "both have made it"):  # fmt: skip
        assert words in shown
    assert "0 accepted, 7 conflicts, 0 rejected" in shown  # the rule has settled an insert and a delete
    assert "Conflicts: 2\n" in shown  # the frame five
    assert "7 accepted, 0 conflicts, 0 rejected" in text_of(cells[-3])
    assert text_of(cells[-2]) == "True"
    assert "de-icing; new gate" in text_of(cells[-1]) and "diverted" in text_of(cells[-1])


@pytest.mark.parametrize("ran", ["03_back_ends.ipynb"], indirect=True)
def test_the_page_on_back_ends_ends_with_the_same_rows_everywhere(ran):
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]

    shown = [text_of(cell) for cell in cells]
    (conflicts,) = [text for text in shown if text.startswith("{'SQLite': 1")]
    assert set(re.findall(r"': (\d+)", conflicts)) == {"1"}
    (rows,) = [text for text in shown if "rock salt" in text]
    titles = [re.findall(r"oat milk|rock salt|tea", line) for line in rows.splitlines()]
    assert [set(line) for line in titles if line] == [{"oat milk"}, {"rock salt"}, {"tea"}]
    assert "bread" not in rows
    assert "'PostgreSQL': 1" in conflicts


@pytest.mark.parametrize("ran", ["04_your_own_backend.ipynb"], indirect=True)
def test_the_back_end_of_the_page_has_forty_lines_and_keeps_the_contract(ran):
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]

    (own,) = [cell.source for cell in cells if "\nclass Ledger:" in cell.source]
    said = "".join(output.text for cell in cells for output in cell.outputs if output.get("name") == "stdout")
    assert len([line for line in own.splitlines() if line and not line.startswith("%%")]) == 40
    assert re.search(r"^\d+ passed, \d+ skipped$", said, re.MULTILINE)
    shown = [text_of(cell) for cell in cells]
    assert any("1 accepted, 1 conflicts, 0 rejected" in text for text in shown)
    assert re.search(r"a +calm +5\nc +over HTTP +5$", shown[-1])


def text_of(cell: nbformat.NotebookNode) -> str:
    return "".join(str(output.get("data", {}).get("text/plain", "")) for output in cell.outputs)


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_is_kept_with_outputs_that_say_nothing_of_where_they_were_made(name):
    text = (NOTEBOOKS / name).read_text()
    notebook = nbformat.reads(text, as_version=4)

    assert [cell.id for cell in notebook.cells] == [f"cell-{at:02}" for at in range(len(notebook.cells))]
    assert all(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not re.search(r"(?<![\w.<])/(home|root|tmp|work|Users)/|token", text)
