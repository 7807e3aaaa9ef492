"""The report: one file, which a browser shows without a network, a script or a complaint."""

import base64
import html.parser
import pathlib
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

import keras_backprop
from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.callbacks import BackwardMonitor
from tests.watch.browser import MISSING, PROGRAM, Browser

FINDING = SimpleNamespace(
    title="<b>Dead</b> units",
    evidence='half of them & "more"',
    remedy="a smaller rate",
    path="net/hidden",
    severity="warning",
)
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


@pytest.fixture(scope="module")
def monitor():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    h = layers.Dense(6, "relu", name="hidden")(inputs)
    h = layers.Add(name="add")([h, layers.Dense(6, "tanh", name="second")(h)])
    model = BackpropModel(inputs, layers.Dense(1, name="out")(h), name="net")
    model.compile("adam", "mse")
    monitor = BackwardMonitor(quantities=("all", "histogram"), every=2)
    model.fit(X, X[:, :1], batch_size=8, epochs=6, verbose=0, callbacks=[monitor])
    return monitor


@pytest.fixture(scope="module")
def report(monitor, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    return monitor.report(path, title="A <net> & more", epsilon=0.1, findings=[FINDING])


class _Tags(html.parser.HTMLParser):
    """What a document is made of, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_one_file_that_asks_for_nothing(report):
    text = report.read_text(encoding="utf-8")
    tags = _Tags(text)
    assert not tags.open
    assert not [(name, value) for name, value in tags.attributes if name.startswith("on") or name in ("src", "style")]
    assert [value for name, value in tags.attributes if name == "href"] == ["data:,"]
    assert "Content-Security-Policy" in text and "default-src 'none'" in text and "unsafe" not in text
    assert "A &lt;net&gt; &amp; more" in text and "<net>" not in text
    assert "&lt;b&gt;Dead&lt;/b&gt; units" in text and "half of them &amp; &quot;more&quot;" in text


def test_what_it_shows(report):
    text = report.read_text(encoding="utf-8")
    for heading in (
        "Findings", "Error", "Gradient flow", "The network, forward and backward", "Update-to-weight ratios", "Gains",
        "Dead and saturated units", "Histograms", "All figures",
    ):  # fmt: skip
        assert f"<h2>{heading}" in text, heading
    assert "ε = 0.1" in text and "hidden/relu" in text and "∂E/∂W‖ of" in text


def test_only_html(monitor, tmp_path):
    with pytest.raises(ValueError, match=r"ends in .html.*report.pdf"):
        monitor.report(tmp_path / "report.pdf")


def test_no_finding_is_a_finding_and_nothing_watched_is_said(monitor, tmp_path):
    assert "Nothing was found" in monitor.report(tmp_path / "a.html", findings=[]).read_text(encoding="utf-8")
    assert "<h2>Findings" not in monitor.report(tmp_path / "b.html").read_text(encoding="utf-8")
    assert "Nothing has been noted" in BackwardMonitor().report(tmp_path / "c.html").read_text(encoding="utf-8")


def test_of_an_explanation(monitor, tmp_path):
    explanation = keras_backprop.explain(monitor.model, X[:4], X[:4, :1])
    path = explanation.report(tmp_path / "explanation.html", findings=[FINDING])
    text = path.read_text(encoding="utf-8")
    assert not _Tags(text).open
    assert "The derivation" in text and "script-src" not in text and "&lt;b&gt;Dead" in text


def test_of_an_explanation_of_two_errors_and_a_convolution(tmp_path):
    inputs = keras.Input((3, 1))
    features = keras.layers.Flatten()(keras.layers.Conv1D(1, 2, name="conv")(inputs))
    model = keras.Model(inputs, [keras.layers.Dense(1, name=name)(features) for name in "pq"])
    model.compile("sgd", ["mse", "mse"])
    explanation = keras_backprop.explain(model, np.ones((2, 3, 1)), [np.ones((2, 1))] * 2)
    page = explanation.report(tmp_path / "page.html").read_text()
    assert page.count("sum·") == 0  # how many examples there are is no link
    assert "conv/kernel, conv/kernel" not in page and "<summary>W₁, conv/kernel</summary>" in page


def test_a_large_network_is_a_small_file(tmp_path):
    """175 links and 100 steps: as many as ResNet50 has."""
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(3, "tanh", name=f"a_rather_long_name_of_a_layer_{i}") for i in range(88)]
    model = BackpropSequential([keras.Input((4,)), *stack, layers.Dense(1)])
    model.compile("sgd", "mse")
    monitor = BackwardMonitor(quantities=("norm", "gain", "update_ratio", "saturated"), every=1)
    model.fit(X, X[:, :1], batch_size=32, epochs=100, verbose=0, callbacks=[monitor])
    assert len(monitor.history.steps) == 100
    path = monitor.report(tmp_path / "large.html")
    assert 50_000 < path.stat().st_size < 2**20


def test_numbers_are_encoded_to_a_tenth_of_a_percent():
    from keras_backprop.report.network_section import _encoded

    x = np.array([1e-19, 3.3e-7, 1.0, 42.0, 1e12, 0.0, np.nan, np.inf])
    code = np.frombuffer(base64.b64decode(_encoded(x)), "<u2").astype(float)
    np.testing.assert_allclose(10 ** (code[:5] / 2000 - 20), x[:5], 1e-3)
    assert code[5:].tolist() == [1, 0, 65535]


@pytest.mark.skipif(PROGRAM is None, reason=MISSING)
def test_in_a_browser(report, tmp_path):
    with Browser(tmp_path) as page:
        page.open(report)
        assert page.value("document.querySelectorAll('section').length") >= 8
        said = page.value("document.getElementById('said').textContent")
        numbers = page.value("[...document.querySelectorAll('[data-number]')].map(e => e.textContent).join()")
        derived = page.value("document.getElementById('derivation').textContent")
        assert "step 22, epoch 5" in said and not page.value("document.getElementById('live').hidden")
        page.value("document.getElementById('step').focus()")
        page.press("ArrowLeft", 37)
        assert "step 20, epoch 5" in page.value("document.getElementById('said').textContent")
        assert numbers != page.value("[...document.querySelectorAll('[data-number]')].map(e => e.textContent).join()")
        assert derived != page.value("document.getElementById('derivation').textContent")
        before = page.value("document.getElementById('derivation').textContent")
        page.value("(e => { e.value = '3'; e.dispatchEvent(new Event('change')); })(document.getElementById('weight'))")
        assert before != page.value("document.getElementById('derivation').textContent")
        for width in (360, 1200):
            page.screenshot(width, 900)
            assert page.value("document.documentElement.scrollWidth <= window.innerWidth"), width
        assert page.messages == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:", "about:"))] == []


@pytest.mark.skipif(PROGRAM is None, reason=MISSING)
def test_without_scripts(report, tmp_path):
    with Browser(tmp_path) as page:
        page.ask("Emulation.setScriptExecutionDisabled", value=True)
        page.open(report)
        document = page.ask("DOM.getDocument", depth=-1)
        text = page.ask("DOM.getOuterHTML", nodeId=document["root"]["nodeId"])["outerHTML"]
        assert re.search(r'<div class="live" id="live" hidden', text)
        numbers = re.findall(r"data-number=\"\d+\">([^<]*)<", text)
        assert len(numbers) >= 12 and sum(number != "–" for number in numbers) > 10
        assert page.messages == []


def test_pictures(monitor, tmp_path):
    pytest.importorskip("matplotlib")
    for what, suffix in (("flow", "png"), ("error", "svg"), ("update_ratio", "png"), ("gain", "png"), ("dead", "pdf")):
        assert monitor.plot(tmp_path / f"{what}.{suffix}", what).stat().st_size > 1000
    with pytest.raises(ValueError, match="There is no figure 'flows'"):
        monitor.plot(tmp_path / "a.png", "flows")
    with pytest.raises(ValueError, match=r"is a .png, .svg or .pdf"):
        monitor.plot(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="Nothing was noted of 'dead'"):
        BackwardMonitor().plot(tmp_path / "a.png", "dead")


def test_in_notebooks(monitor):
    model = monitor.model
    assert "<iframe sandbox" in monitor._repr_html_() and "nothing has been noted" in BackwardMonitor()._repr_html_()
    check = keras_backprop.check_gradients(model, X[:4], X[:4, :1])
    assert "all agree" in check._repr_html_() and "hidden/kernel" in check._repr_html_()
    explanation = keras_backprop.explain(model, X[:4], X[:4, :1])
    assert "hidden" in explanation._repr_html_() and "$" in explanation._repr_markdown_()
    result = keras_backprop.backward(model, X[:4], X[:4, :1])
    assert "hidden/kernel" in result._repr_html_() and "$E =" in result._repr_html_()
    for shown in (check, explanation, result):
        _Tags(shown._repr_html_())


def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = pathlib.Path(__file__).parents[2]
    guide = (root / "docs/watching.md").read_text(encoding="utf-8")
    namespace = {"run": SimpleNamespace(log=print)}
    for block in re.findall(r"```python\n(.+?)```", guide, re.DOTALL):
        exec(block, namespace)
    assert (tmp_path / "report.html").exists()
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", guide) if not (root / "docs" / link).exists()]
    assert links == []


@pytest.mark.parametrize("quantities", ["gain", "all", ("histogram", "norm")])
def test_of_a_training_that_went_wrong(quantities, tmp_path):
    keras.utils.set_random_seed(0)
    model = BackpropSequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(1)], name="net")
    model.compile(keras.optimizers.SGD(1e12), "mse")
    monitor = BackwardMonitor(quantities=quantities, every=1)
    model.fit(X, X[:, :1], batch_size=8, epochs=2, verbose=0, callbacks=[monitor])
    text = monitor.report(tmp_path / "wrong.html").read_text(encoding="utf-8")
    assert not _Tags(text).open and (quantities == "gain" or "not finite" in text)
