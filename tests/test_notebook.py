"""notebooks/quickstart.ipynb, run as it is: on the CPU, outside Colab."""

import json

import pytest

from tests.helpers import ROOT

NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def test_notebook_has_no_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) == 6 and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.filterwarnings("default")  # of Jupyter's own
def test_notebook_runs(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    nbformat = pytest.importorskip("nbformat", reason="it is run by nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="it is run by nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="it is run by nbclient and ipykernel")
    monkeypatch.setenv("WORK", str(tmp_path / "work"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = ["".join(output.text for output in cell.outputs if output.output_type == "stream") for cell in code]
    images = [sum("image/jpeg" in output.get("data", {}) for output in cell.outputs) for cell in code]
    assert texts[1].count("face confidence") == 8 and images == [0, 1, 0, 1, 0, 1]
    assert texts[3].splitlines()[1].startswith("with_mask") and texts[5].startswith("with_mask")
    assert {"mine.keras", "mine.onnx", "mine.int8.onnx", "plot.png"} <= {path.name for path in (tmp_path / "work").iterdir()}
