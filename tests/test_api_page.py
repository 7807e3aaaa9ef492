"""docs/api.md has every public name, and says what is true."""

import importlib.util
import pathlib

import keras
import pytest

import keras_backprop

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("generate_api", DOCS / "generate_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page()


def test_every_public_name_is_there(page):
    modules = {"callbacks", "gradients", "layers", "losses", "privacy", "rules"}
    assert [name for name in keras_backprop.__all__ if name not in modules and f"`{name}`" not in page] == []


def test_every_name_has_a_sentence(page):
    assert [row for row in page.splitlines() if row.startswith("|") and row.endswith("|  |")] == []


@pytest.mark.skipif(not keras.__version__.startswith("3.15."), reason="arguments of a layer are Keras 3.15's")
def test_the_page_is_not_stale(page):
    assert (DOCS / "api.md").read_text() == page, "run `python docs/generate_api.py`"
