"""What the README shows is true: its example runs, its quotations are from the source, its links lead somewhere."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.+?)```", README, re.DOTALL)


def test_the_example_runs(capsys):
    namespace = {}
    exec(BLOCKS[0], namespace)
    printed = capsys.readouterr().out
    quoted = re.search(r"```\n(The gradients, as products.+?)```", README, re.DOTALL)[1]
    assert quoted in printed and "all agree" in printed and "stopped" in printed
    assert namespace["model"].evaluate(namespace["x"], namespace["t"], verbose=0) <= 0.001


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "keras_backprop/rules/README.md"])
def test_the_rule_is_quoted_from_the_source(page):
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    quoted = next(block for block in blocks if "@backward_rule(layers.Dense" in block)
    assert quoted in (ROOT / "keras_backprop/rules/layers/core.py").read_text(encoding="utf-8")


@pytest.mark.slow  # a thousand epochs of stock Keras are in it
@pytest.mark.usefixtures("registry_restored")
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "docs/using.md").read_text(encoding="utf-8")
    namespace = {}
    for block in re.findall(r"```python\n(.+?)```", guide, re.DOTALL):
        exec(block, namespace)
    assert (tmp_path / "network.png").exists()
    assert not [link for link in re.findall(r"\]\(([^)#]+)\)", guide) if not (ROOT / "docs" / link).exists()]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README))
def test_the_links_lead_somewhere(link):
    assert (ROOT / link).exists()
