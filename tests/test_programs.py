"""Programs written for Keras, PyTorch and scikit-learn run after a change of their import lines.

Each program of tests/programs runs in its own framework first, so that it is known to be a program of that framework,
and then with fastgru in the import lines. The two use other random numbers; what they learn has to be alike.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

PROGRAMS = Path(__file__).parent / "programs"
#: In the import lines of each framework's programs: the text to change, and the text it becomes.
CHANGES = {
    "keras": [("import keras", "import fastgru as keras"), ("from keras import", "from fastgru import")],
    "torch": [("from torch.nn import GRU", "from fastgru.torch import GRU")],
    "sklearn": [
        (
            "from sklearn.neural_network import MLPClassifier as Classifier",
            "from fastgru.sklearn import GRUClassifier as Classifier",
        )
    ],
}


def run(name: str, *, changed: bool, edit: tuple[str, str] | None = None) -> dict[str, object]:
    """The names that a program leaves behind."""
    introduction, imports, program = re.split(
        r"^# (?:imports|program)\n", (PROGRAMS / f"{name}.py").read_text(), flags=re.M
    )
    if changed:
        for old, new in CHANGES[name.partition("_")[0]]:
            assert old in imports
            imports = imports.replace(old, new)
    if edit is not None:
        assert edit[0] in program
        program = program.replace(*edit)
    found: dict[str, object] = {"__name__": name}
    exec(compile(introduction + imports + program, f"{name}.py", "exec"), found)
    return found


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning")  # Keras' default
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' variables
@pytest.mark.peers("keras", "tensorflow")
@pytest.mark.parametrize("name", ["keras_addition", "keras_forecast", "keras_sentiment"])
def test_keras_programs_run_after_a_change_of_imports(name, capsys):
    theirs, ours = run(name, changed=False), run(name, changed=True)
    assert ours["keras"].__name__ == "fastgru"
    assert np.shape(ours["predictions"]) == np.shape(theirs["predictions"])
    assert isinstance(ours["score"], list)
    assert len(ours["score"]) == len(theirs["score"])
    for result in (theirs, ours):
        losses = result["history"].history["loss"]
        assert losses[-1] < 0.9 * losses[0]
    assert ours["history"].history.keys() == theirs["history"].history.keys()
    assert ours["history"].epoch == theirs["history"].epoch
    # The same function is fitted to the same data: the losses of the last epoch are alike.
    assert ours["history"].history["loss"][-1] == pytest.approx(theirs["history"].history["loss"][-1], rel=0.5)
    capsys.readouterr()


@pytest.mark.peers("torch")
def test_a_torch_program_runs_after_a_change_of_imports():
    theirs, ours = run("torch_names", changed=False), run("torch_names", changed=True)
    assert ours["GRU"].__module__.startswith("fastgru")
    assert ours["predictions"].shape == theirs["predictions"].shape
    # Weights and data are drawn from the same generator in the same order; dropout masks are drawn differently.
    assert ours["score"] > 0.95
    assert theirs["score"] > 0.95


@pytest.mark.peers("sklearn")
def test_a_scikit_learn_program_runs_after_the_change_that_a_message_names():
    theirs = run("sklearn_digits", changed=False)
    with pytest.raises(ValueError, match=r"X: expected .*\(N, T, F\).*got .*\(\d+, 64\)") as refused:
        run("sklearn_digits", changed=True)
    assert "reshape" in str(refused.value)
    edit = (
        "images, labels = images[:600], labels[:600]",
        "images, labels = images[:600].reshape(-1, 8, 8), labels[:600]",
    )
    ours = run("sklearn_digits", changed=True, edit=edit)
    assert ours["predictions"].shape == theirs["predictions"].shape
    assert ours["score"] > 0.8
    assert len(ours["scores"]) == len(theirs["scores"])
