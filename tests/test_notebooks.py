"""The notebooks run from top to bottom and show what they promise; the pages of the documentation are made of them."""

import importlib.util
import pathlib

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[1]
specification = importlib.util.spec_from_file_location("render", ROOT / "examples/notebooks/render.py")
render = importlib.util.module_from_spec(specification)
specification.loader.exec_module(render)

SHOWN = {
    "the_note": ["0.4653 · 0.2037 · 0.6023 = 0.0571", "1000", "![the note](the_note.png)"],
    "two_two_two": ["0.74136507 · 0.186815602 · 0.593269992 = 0.082167041", "w8_new = 0.561370121: exact"],
    "softmax": ["(softmax and cross entropy together)", "was multiplied in addition"],
    "recurrent": ["Step by step through time", "time step", "path 3"],
    "vanishing_gradients": ["3.8e-05", "![vanishing gradients]"],
    "your_own_rule": ["all agree", "The rule 'forgotten' of 'own/hidden/bell' is wrong"],
    "compute_and_compare": ["at a instead of z", "none I know", "………………"],
}


def test_there_is_a_page_for_every_notebook():
    names = [path.stem for path in render.sources()]
    assert sorted(SHOWN) == names
    index = (ROOT / "examples/notebooks/README.md").read_text(encoding="utf-8")
    assert all(f"({name}.py)" in index and (ROOT / f"docs/notebooks/{name}.md").exists() for name in names)


LONG = ("the_note", "vanishing_gradients")  # hundreds of updates


@pytest.mark.usefixtures("registry_restored")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in SHOWN])
def test_a_notebook(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    try:
        page = render.rendered(ROOT / f"examples/notebooks/{name}.py")
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
    for text in SHOWN[name]:
        assert text in page, text
    written = (ROOT / f"docs/notebooks/{name}.md").read_text(encoding="utf-8")
    assert [line for line in written.splitlines() if line.startswith("#")] == [
        line for line in page.splitlines() if line.startswith("#")
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("registry_restored")
def test_the_page_on_explaining(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    page = (ROOT / "docs/explain.md").read_text(encoding="utf-8")
    try:
        namespace = {}
        for block in page.split("```python\n")[1:]:
            exec(block.split("```")[0], namespace)
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
    printed = capsys.readouterr().out
    quoted = page.split("```\nThe chain")[1].split("```")[0].rstrip()
    assert quoted in printed and "Mistake: the sign is wrong" in printed
