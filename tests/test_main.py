"""`python -m keras_backprop`."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest

from keras_backprop.__main__ import main

ROOT = pathlib.Path(__file__).parents[1]

FIGURES = """
z₁ 0.415
a₁ 0.6023
z₂ 0.9210
a₂ 0.7153
∂E/∂a₂ 0.4653
∂a₂/∂z₂ 0.2037
∂E/∂w₂ 0.0571
w₂ 0.4271718
b₂ 0.6120974
w₁ 0.1495914
b₁ 0.3959144
"""


def test_it_prints_the_notes_figures_trains_and_draws(tmp_path, capsys):
    assert main(["--output-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for line in FIGURES.split("\n"):
        if line:
            name, figure = line.split()
            assert any(name in text and figure in text for text in printed.splitlines()), line
    assert "stopped after 82 epochs" in printed and "0.000964" in printed
    assert "all agree" in printed
    for picture in ("network.png", "error.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_another_set_up(tmp_path, capsys):
    arguments = "--epochs 3 --epsilon 1e-9 --learning-rate 0.1 --input -0.5 --target 0.9 --weights 0.1 0.2 0.3 0.4"
    assert main([*arguments.split(), "--output-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "stopped after" not in printed and "3" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        "--epochs 0",
        "--epochs many",
        "--epsilon -1",
        "--epsilon nan",
        "--learning-rate 0",
        "--input x",
        "--target 1e200",
        "--weights 1 2 3",
    ],
)
def test_bad_values_get_one_clear_line(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments.split())
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and arguments.split()[0] in error


def test_numbers_may_be_written_with_a_negative_exponent(tmp_path, capsys):
    arguments = ["--input", "-1e-3", "--weights", "-1e-1", "0.2", "-3e-1", "0.4", "--epochs", "1"]
    assert main([*arguments, "--output-dir", str(tmp_path)]) == 0
    assert "∂z₁/∂w₁   = x            -0.001" in capsys.readouterr().out


def test_an_output_directory_that_cannot_be(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as exit:
        main(["--output-dir", str(tmp_path / "file")])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and len(error.splitlines()) == 1 and "--output-dir: cannot create" in error


def test_without_matplotlib_it_runs_and_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["--epochs", "2", "--output-dir", str(tmp_path)]) == 0
    assert 'needs Matplotlib: pip install "keras-backprop[plot]"' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_default_dtypes_are_put_back(tmp_path):
    before = keras.config.floatx(), keras.config.dtype_policy().name
    main(["--epochs", "1", "--output-dir", str(tmp_path)])
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == before


def test_an_error_of_zero_is_drawn_without_a_warning(tmp_path, capsys):
    arguments = "--input 0 --target 0.5 --weights 0 0 0 0"
    assert main([*arguments.split(), "--output-dir", str(tmp_path)]) == 0
    assert "stopped after 1 epoch with the error 0.000000000" in capsys.readouterr().out


@pytest.mark.slow
def test_as_a_command_it_is_not_drowned_by_tensorflow(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "keras_backprop", "--epochs", "1", "--output-dir", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    assert ran.stdout.startswith("The chain of 'worked_example'")
    assert ran.stderr == "" or "font cache" in ran.stderr
