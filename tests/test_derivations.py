"""docs/derivations: a page for each hard rule, and the code it quotes stands in the tree."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "derivations").glob("*.md"))
TOPICS = {"attention", "batch_normalization", "convolution", "crossentropy", "layer_normalization", "recurrent"}


def lines(text):
    """Without blanks: a quotation may be indented otherwise."""
    return [re.sub(r"\s+", "", line) for line in text.splitlines() if line.strip()]


SOURCES = {path: lines(path.read_text()) for path in (ROOT / "keras_backprop").rglob("*.py")}


def is_quoted_from(block, source):
    """Whether the lines of the block stand in the source in this order; some may be left out between them."""
    rest = iter(source)
    return all(line in rest for line in lines(block))


def test_every_hard_rule_has_its_page():
    assert {page.stem for page in PAGES} == TOPICS
    recurrent = (ROOT / "docs" / "derivations" / "recurrent.md").read_text()
    assert "## LSTM" in recurrent and "## GRU" in recurrent


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_it_quotes_stands_in_the_tree(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    assert blocks
    for block in blocks:
        assert any(is_quoted_from(block, source) for source in SOURCES.values()), f"not in the tree:\n{block}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_it_names_exist(page):
    for name in re.findall(r"`(keras_backprop/[\w/]+\.py)`", page.read_text()):
        assert (ROOT / name).exists(), name


def test_a_quotation_that_is_a_little_off_is_noticed():
    source = lines("a = 1\nb = 2\nc = a + b\n")
    assert is_quoted_from("  a = 1\n  c = a + b\n", source)
    assert not is_quoted_from("c = a + b\na = 1\n", source)
    assert not is_quoted_from("a = 1\nc = a - b\n", source)
