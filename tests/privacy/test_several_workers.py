"""Real worker processes on this machine that train privately, against training in one process with the same secret."""

import json
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.training.launch import launch
from tests.privacy import workers

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def two_workers(folder, *arguments, restarts=0):
    """What the two workers report, and how often they were started again."""
    environment = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, str(ROOT / "tests/privacy/workers.py"), str(folder), *arguments]
    restarted = launch(command, workers=2, restarts=restarts, timeout=240, environment=environment)
    return [json.loads((folder / f"{task}.json").read_text()) for task in (0, 1)], restarted


def assert_equal(worker, process):
    for one, other in zip(worker["weights"], process["weights"], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    np.testing.assert_allclose(worker["plan"], process["plan"], rtol=1e-6)
    assert worker["loss"] == pytest.approx(process["loss"], rel=1e-5)


def test_two_workers_draw_alike_and_reach_what_one_process_reaches(tmp_path):
    """Each has a secret of its own in the beginning; the batches and the noise are those of the chief's."""
    (chief, other), _ = two_workers(tmp_path)
    for worker, said in enumerate([chief.pop("steps"), other.pop("steps")]):
        assert f"The plan of this worker has counted {worker} steps, that of the chief 0" in said
    assert other.pop("breaks") == "the callback is broken"
    assert "worker 1 has ended with an error, RuntimeError: the callback is broken. Mend it there" in chief.pop(
        "breaks"
    )
    received = chief.pop("fewer"), other.pop("fewer")
    assert [said[said.index("Received") :] for said in received] == [
        f"Received on this worker: ({n}, 5) float32, ({n},) int64" for n in (40, 20)
    ]
    for case in ("lengths", "public lengths"):
        assert "The training of worker 1 has ended with an error, ValueError: Data cardinality" in chief[case]
        assert chief.pop(case).endswith(f"{other.pop(case)}. Mend it there, and start all workers again.")
    # That what comes after these, "breaks", was a training says that they have ended no collective operation.
    assert chief == other
    for case, what in (("order", "rows"), ("part", "rows")):
        assert f"The data of worker 1 have other {what} than those of worker 0" in chief[case]
    for case in workers.CASES:
        assert_equal(chief[case], workers.train(tf.distribute.get_strategy(), case, key=chief[case]["key"]))
    assert len({tuple(chief[case]["key"]) for case in workers.CASES}) == len(workers.CASES)
    assert "depends on who else is in the batch" in chief["mixes"]
    assert "Leave `generator` out" in chief["generator"]


def test_started_again_they_go_on_with_the_steps_and_the_secret_of_before(tmp_path):
    results, restarted = two_workers(tmp_path, "--kill", "8", restarts=1)
    assert restarted == 1
    straight = workers.train(tf.distribute.get_strategy(), "flat")
    for result in results:
        assert_equal(result["flat"], straight)
