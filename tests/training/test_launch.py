"""The launcher of workers: its arguments, and that it leaves nobody behind. (The workers here are no cluster.)"""

import os
import signal
import subprocess
import sys
import time

import pytest

from keras_backprop.training.launch import launch, main

LAUNCH = [sys.executable, "-m", "keras_backprop.training.launch"]


def runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_ended_by_a_signal_it_ends_the_workers(tmp_path, sent):
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"pathlib.Path({str(tmp_path)!r}, f'{{os.getpid()}}.pid').touch()\n"
        "time.sleep(120)\n"
    )
    launcher = subprocess.Popen(
        [*LAUNCH, "--workers", "2", str(script)], stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs do not hear Ctrl-C
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(workers := [int(path.stem) for path in tmp_path.glob("*.pid")]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2 and all(map(runs, workers))
    launcher.send_signal(sent)
    assert launcher.wait(30) != 0
    assert not any(map(runs, workers))


@pytest.mark.parametrize(
    "arguments", [["--workers", "0"], ["--workers", "-1"], ["--restarts", "-1"], ["--workers", "x"]]
)
def test_nonsense_is_an_error_of_the_arguments(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["launch", *arguments, "never.py"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and f"argument {arguments[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"restarts": -1}])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match="There must be a worker"):
        launch([sys.executable, "never.py"], **arguments)
