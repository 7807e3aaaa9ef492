"""Every example runs and shows what it promises."""

import pathlib
import re
import runpy

import keras
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _settings_restored():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def run(name, capsys, arguments=None):
    namespace = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    if arguments is not None:
        namespace["main"](arguments)
    return namespace, capsys.readouterr().out


def test_worked_example(capsys):
    namespace, printed = run("worked_example", capsys)
    assert namespace["stop"].stopped_epoch == 82
    assert "Stopped after 82 of 1000 epochs with the error 0.0009641" in printed


def test_digits(capsys):
    namespace, printed = run("digits", capsys)
    assert namespace["accuracy"] >= 0.97
    assert "Accuracy on the held-out fifth" in printed


def test_custom_layer(capsys):
    namespace, printed = run("custom_layer", capsys)
    assert "all agree" in printed
    losses = namespace["history"].history["loss"]
    assert losses[-1] < 0.1 * losses[0]


def test_no_rule_needed(capsys):
    namespace, printed = run("no_rule_needed", capsys)
    assert "all agree" in printed and namespace["moved"] > 0.01


@pytest.mark.slow
def test_several_machines(capsys):
    namespace, printed = run("several_machines", capsys)
    assert namespace["restarts"] == 1 and "a model after 180 steps" in printed


def test_open_backward(capsys):
    namespace, printed = run("open_backward", capsys)
    assert "epoch 5: ‖δ‖ of digits/hidden" in printed
    assert min(namespace[name]["accuracy"][-1] for name in ("plain", "clipped", "aligned")) > 0.8
    missing = namespace["mask"] == 0
    assert (namespace["hidden"].kernel.numpy()[missing] == 0).all()


def test_watch_gradients(capsys):
    namespace, printed = run("watch_gradients", capsys)
    assert "From the last hidden layer to the first" in printed
    assert namespace["lost"]["sigmoid"] > 1000 * namespace["lost"]["tanh"]
    assert all((namespace["directory"] / f"{name}.html").stat().st_size > 10_000 for name in ("sigmoid", "tanh"))


def test_wrong_labels(capsys):
    _, printed = run("wrong_labels", capsys, ["--epochs", "8"])
    at_35 = dict(re.findall(r"^  (\w.*?) +(\d\.\d\d) +\d\.\d\d +\d\.\d\d$", printed, re.MULTILINE))
    assert float(at_35.pop("chance")) < 0.4
    assert (
        set(at_35) == {"loss, mean", "EL2N", "GraNd", "area under the margin"} and min(map(float, at_35.values())) > 0.9
    )


def test_private_digits(capsys):
    _, printed = run("private_digits", capsys, [])
    assert float(re.search(r"397 digits: ([\d.]+)", printed)[1]) > 0.9
    assert 5.9 < float(re.search(r"\(ε = ([\d.]+), δ = 0.0001\)-differentially private", printed)[1]) <= 6
    assert "whole epochs compiled" in printed
