"""The notebooks run from top to bottom."""

from pathlib import Path

import pytest

from shared_data import shared_data

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.timeout(1500)  # the longest takes some minutes on two idle cores
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    if any("datasets.oznet" in cell.source for cell in notebook.cells):
        monkeypatch.setenv("BAYESENS_DATA", str(shared_data("oznet", "raw").parents[1]))
    NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")
