"""`python -m keras_backprop`."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest

from keras_backprop.__main__ import main
from keras_backprop.explanations.command_line import data_of, options_of

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
        "--weights 1 x 3 4",
    ],
)
def test_bad_values_get_one_clear_line(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments.split())
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and arguments.split()[0] in error


TEXTBOOK = "--hidden 2 --outputs 2 --inputs .05 .10 --targets .01 .99 --learning-rate .5 --epochs 1 --weights"


@pytest.mark.parametrize(
    "weights",
    [
        ".15 .20 .25 .30 .40 .45 .50 .55 --biases .35 .60",
        ".15 .20 .25 .30 .35 .40 .45 .50 .55 .60",
        ".15 .20 .25 .30 .35 .35 .40 .45 .50 .55 .60 .60",
    ],
)
def test_the_textbook_network(tmp_path, capsys, weights):
    arguments = [*f"{TEXTBOOK} {weights}".split(), "--digits", "9", "--output-dir", str(tmp_path)]
    assert main([*arguments, "--chain", "w5", "w1", "--compare", "dw5=0.0822", "dw5=-0.0822", "--steps", "3"]) == 0
    printed = capsys.readouterr().out
    for text in ("0.298371109", "(w₅) = 0.358916479", "(w₈) = 0.561370121", "(w₁) = 0.149780716", "(w₄) = 0.2995022", "0.4 → 0.35891648",
                 "0.74136507 · 0.186815602 · 0.593269992 = 0.082167041", "dw5 = 0.0822: exact", "the sign is wrong", "3 updates of"):  # fmt: skip
        assert text in printed


def test_a_csv_of_several_examples(tmp_path, capsys):
    (tmp_path / "xor.csv").write_text("a,b,target\n0,0,0\n0,1,1\n1,0,1\n1,1,0\n")
    arguments = [
        "--csv",
        str(tmp_path / "xor.csv"),
        "--hidden",
        "2",
        "--loss",
        "mse",
        "--epochs",
        "1",
        "--example",
        "2",
    ]
    assert main([*arguments, "--output-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "for 4 examples, of which example 2 is shown" in printed and "all agree" in printed


@pytest.mark.slow
def test_ten_thousand_steps_with_the_biases_held(tmp_path, capsys):
    arguments = ["--hidden", "2", "--outputs", "2", "--hold-biases", "--epochs", "10000", "--epsilon", "1e-9"]
    assert main([*arguments, "--output-dir", str(tmp_path)]) == 0
    assert "the error of the last is 0.000035" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--hidden 2 --outputs 2 --weights 1 2 3", "--weights: 8 weights are needed"),
        ("--hidden 2 --outputs 2 --target 1", "--target: 2 numbers are needed"),
        ("--input 1 --input 2", "--target: there must be one for each --input"),
        ("--chain w9", "--chain: There is no weight 'w9'"),
        ("--compare dw2", "--compare: write NAME=NUMBER"),
        ("--csv nowhere.csv", "--csv: cannot read 'nowhere.csv'"),
        ("--example 2", "--example: must be from 1 to 1"),
        ("--digits 99", "--digits: must be from 1 to 17"),
    ],
)
def test_set_ups_that_make_no_sense(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main([*arguments.split(), "--output-dir", str(tmp_path)])
    assert exit.value.code == 2 and message in capsys.readouterr().err


def options_for(text, tmp_path, *more):
    (tmp_path / "data.csv").write_bytes(text)
    return options_of(["--csv", str(tmp_path / "data.csv"), "--output-dir", str(tmp_path), *more])


def test_a_table_as_spreadsheets_write_it(tmp_path):
    for text in (b"x;t\n0,5;1\n0,25;0\n", b"x\tt\n0.5\t1\n0.25\t0\n", b"\xef\xbb\xbf0.5,1\n\n0.25,0\n"):
        x, target = data_of(*options_for(text, tmp_path))
        assert x.tolist() == [[0.5], [0.25]] and target.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        (b"", "", "has no numbers"),
        (b"x,t\n", "", "has no numbers"),
        (b"\xff\xfe\x00,1\n", "", "no text in UTF-8"),
        (b"1,2\n3\n", "", "as many numbers in every line"),
        (b"1,0.5,0.4\n", "--outputs 2 --loss categorical_crossentropy", "add up to 1. Received: [[0.5, 0.4]]"),
        (b"1,1\n", "--loss categorical_crossentropy", "two or more --outputs"),
        (b"1,3\n", "--loss binary_crossentropy", "a class, 0 or 1, or a share between the two. Received: [[3.0]]"),
        (
            b"1,1\n",
            "--loss binary_crossentropy --last-activation linear",
            "of probabilities, which sigmoid and softmax",
        ),
        (b"1,1\n", "--seed -1", "0 or more. Received: '-1'"),
    ],
)
def test_a_table_that_makes_no_sense(text, more, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        data_of(*options_for(text, tmp_path, *more.split()))
    assert raised.value.code == 2 and message in capsys.readouterr().err


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


def test_one_example_of_a_network_that_is_drawn_layer_by_layer(tmp_path, capsys):
    arguments = "--hidden 9 --input .1 --target .2 --input .3 --target .4 --example 2 --epochs 2"
    assert main([*arguments.split(), "--output-dir", str(tmp_path)]) == 0
    assert (tmp_path / "network.png").exists() and "network.png" in capsys.readouterr().out


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
