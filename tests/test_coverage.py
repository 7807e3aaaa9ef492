"""Everything public in Keras is accounted for, and docs/coverage.md says what is true."""

import importlib.util
import pathlib

import keras
import pytest

pytestmark = pytest.mark.skipif(
    keras.__version__.rsplit(".", 1)[0] != "3.15", reason="the catalogue, and the page, are about Keras 3.15"
)
DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def coverage():
    return load_coverage()


def load_coverage():
    """The module docs/generate_coverage.py."""
    spec = importlib.util.spec_from_file_location("generate_coverage", DOCS / "generate_coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unaccounted(coverage, entries):
    return [name for name, key in entries.items() if coverage.state(name, key) == "unknown"]


def test_every_layer_is_in_exactly_one_state(coverage):
    layers = coverage.public_layers()
    assert len(layers) > 140
    assert unaccounted(coverage, layers) == []


def test_every_activation_loss_and_operation_is_in_exactly_one_state(coverage):
    assert unaccounted(coverage, coverage.public_functions(keras.activations)) == []
    assert unaccounted(coverage, coverage.public_functions(keras.losses)) == []
    assert unaccounted(coverage, coverage.public_operations()) == []


def test_something_new_would_be_noticed(coverage):
    class Brandnew(keras.layers.Layer):
        pass

    assert unaccounted(coverage, {"Brandnew": Brandnew}) == ["Brandnew"]


def test_the_page_is_not_stale(coverage):
    page = (DOCS / "coverage.md").read_text()
    assert page == coverage.page(), "run `python docs/generate_coverage.py`"
