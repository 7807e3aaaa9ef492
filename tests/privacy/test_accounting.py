"""The accountant against known values, and what must be so of any."""

import copy
import json
import math
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from keras_backprop import privacy
from keras_backprop.privacy import accounting
from tests.privacy.problem import a_plan


def plan_for(examples, size, noise, delta, **options):
    return a_plan(
        examples=examples,
        expected_batch_size=size,
        epochs=20,
        noise_multiplier=noise,
        delta=delta,
        seed=None,
        **options,
    )


@pytest.mark.parametrize(
    ("examples", "size", "noise", "steps", "delta", "rdp", "pld"),
    [
        (60_000, 250, 1.3, 3600, 1e-5, 0.9422, 0.8530),
        (10_000, 64, 1.0, 782, 1e-6, 1.6164, 1.1987),
        (100, 100, 1.0, 1, 1e-5, None, 4.377178),  # the exact value of the Gaussian mechanism
    ],
)
def test_known_values(examples, size, noise, steps, delta, rdp, pld):
    plan = plan_for(examples, size, noise, delta)
    assert plan.epsilon(steps) == pytest.approx(pld, abs=6e-5 if steps > 1 else 1e-6)
    if rdp is not None:
        assert plan.epsilon(steps, accountant="rdp") == pytest.approx(rdp, abs=6e-5)


def test_replacement_is_told_apart():
    plan = plan_for(60_000, 250, 1.3, 1e-5, neighbours="replace one")
    assert plan.epsilon(3600) == pytest.approx(1.538, abs=5e-3)
    with pytest.raises(ValueError, match="RDP accountant"):
        plan.epsilon(3600, accountant="rdp")


def test_it_grows_with_the_steps_and_the_batch_and_falls_with_the_noise():
    def plan_for_all(size, noise):  # no batch is truncated: quick
        return plan_for(1000, size, noise, 1e-4, largest_batch_size=1000)

    plan = plan_for_all(100, 1.0)
    by_steps = [plan.epsilon(steps) for steps in (0, 1, 50)]
    assert by_steps[0] == 0 and by_steps == sorted(set(by_steps))
    by_size = [plan_for_all(size, 1.0).epsilon(50) for size in (50, 400)]
    assert by_size == sorted(set(by_size))
    by_noise = [plan_for_all(100, noise).epsilon(50) for noise in (2.0, 0.7)]
    assert by_noise == sorted(set(by_noise))
    assert plan_for_all(100, 0.0).epsilon(1) == math.inf


def test_truncated_batches_have_a_price():
    free, tight = (plan_for(1000, 64, 2.0, 1e-4, largest_batch_size=size) for size in (None, 75))
    assert free.epsilon(20) < tight.epsilon(20)
    assert 64 < free.largest_batch_size < 128


def test_shuffled_batches_are_not_amplified():
    plan = plan_for(1000, 100, 1.0, 1e-5, sampling="shuffled")
    gaussian = plan_for(1000, 1000, 1.0, 1e-5)
    assert plan.epsilon(1) == plan.epsilon(10) == pytest.approx(gaussian.epsilon(1))
    assert plan.epsilon(11) == plan.epsilon(20) == pytest.approx(gaussian.epsilon(2))


@pytest.mark.slow
@pytest.mark.parametrize("sampling", accounting.SAMPLINGS)
def test_noise_for_a_target(sampling):
    options = {"examples": 300, "expected_batch_size": 100, "epochs": 3, "clipping_norm": 1, "delta": 1e-5}
    plan = privacy.Plan(**options, epsilon=2.0, sampling=sampling)
    assert 1.99 < plan.epsilon(plan.planned_steps) <= 2.0
    assert plan.planned_steps == 9 and plan.steps == 0 and plan.epsilon() == 0


def test_nothing_of_it_is_loaded_at_import():
    program = "import sys, keras_backprop; assert 'dp_accounting' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"examples": 0}, {"examples": 2.5}, {"expected_batch_size": 41}, {"epochs": 0}, {"clipping_norm": 0}, {"clipping_norm": -1},
        {"clipping_norm": {"*": 1}}, {"noise_multiplier": None}, {"noise_multiplier": -1}, {"epsilon": 1.0}, {"delta": 0}, {"delta": 1},
        {"delta": None}, {"sampling": "random"}, {"neighbours": "all"}, {"clipping": "hard"}, {"largest_batch_size": 7},
        {"largest_batch_size": 10, "sampling": "shuffled"}, {"clipping_norm": 10**400},
    ],
)  # fmt: skip
def test_what_makes_no_plan(wrong):
    with pytest.raises(ValueError, match=next(reversed(wrong)).split("_")[0]):
        a_plan(**wrong)


def test_a_count_may_not_use_up_the_budget():
    with pytest.raises(ValueError, match="half the noise multiplier"):
        a_plan(clipping=privacy.Adaptive(count_stddev=0.4))


def test_a_generator_must_be_one():
    with pytest.raises(TypeError, match="standard_normal"):
        a_plan(generator=object(), seed=None)
    with pytest.raises(ValueError, match="either `generator` or `seed`"):
        a_plan(generator=privacy.SystemRandom())
    with pytest.raises(TypeError, match="seed"):
        a_plan(seed=1.5)


def test_a_seed_warns():
    with pytest.warns(UserWarning, match="whoever knows the seed"):
        privacy.Plan(4, 2, 1, 1.0, noise_multiplier=1.0, delta=0.1, seed=1)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("sampling", "neighbours"),
    [
        ("poisson", "add or remove one"),
        ("poisson", "replace one"),
        ("shuffled", "zero out one"),
        ("shuffled", "replace one"),
    ],
)
def test_the_statement_says_what_it_is(sampling, neighbours):
    plan = a_plan(sampling=sampling, neighbours=neighbours)
    text = plan.statement(5)
    assert f"ε = {plan.epsilon(5):.3g}" in text and "δ = 0.001" in text and "after 5 steps" in text
    assert ("Poisson sampling" in text) == (sampling == "poisson")
    assert ("No amplification" in text) == (sampling == "shuffled")
    for also in ("history", "early stopping", "hyper-parameters", "Gaussian noise of 1 times"):
        assert also in text
    assert "replacement" in text if neighbours == "replace one" else "replacement of one" not in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": None}, "not cryptographic, with a secret seed from the operating system."),
        ({"seed": 3}, "a seed that was given: nothing is guaranteed against anybody who knows it."),
        ({"seed": None, "generator": privacy.SystemRandom()}, "the generator that was given, `SystemRandom`."),
    ],
)
def test_the_statement_says_where_random_numbers_come_from(options, said):
    text = a_plan(**options).statement(5)
    assert (
        text[text.index("The random numbers") :].partition(" The number of")[0].partition(" That no")[0].endswith(said)
    )


def test_what_was_true_of_the_steps_is_said_of_a_plan_that_goes_on():
    plan = a_plan(seed=3)
    plan._count.assign(4)
    assert plan.past.given
    later = privacy.Plan.from_config(json.loads(json.dumps(plan.get_config())))
    for text in (plan.statement(), later.statement()):
        assert "The batches of the steps were chosen by the calling program" in text and "a seed that was given" in text
    unknown = plan.get_config() | {"noise_multiplier": 0.0, "steps_were": "drawn"}  # as an earlier version said it
    del unknown["past"]
    text = privacy.Plan.from_config(unknown).statement()
    assert "nothing was written down" in text and "chosen by the calling program" in text
    unused = privacy.Plan.from_config(a_plan(seed=3).get_config())
    assert "a seed that was given" not in unused.statement(5) and "Poisson sampling" in unused.statement(5)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_a_copy_counts_on_with_a_secret_of_its_own(again):
    """Two models with the same noise would tell by their difference what it hides."""
    plan = a_plan(clipping="adaptive", seed=None)
    plan._count.assign(4)
    other = again(plan)
    other._count.assign_add(1)
    assert (plan.steps, other.steps, other.past.drawn) == (4, 5, 0) and other.past.given
    assert (plan._randomness.key.numpy() != other._randomness.key.numpy()).any()
    assert repr(other) == repr(plan) and other.clipping.norm is not plan.clipping.norm


def test_a_copy_draws_from_the_generator_that_was_given_and_is_not_pickled():
    plan = a_plan(seed=None, generator=np.random.default_rng(0))
    one, other = (p._randomness.bits(4, 0).numpy() for p in (plan, copy.deepcopy(plan)))
    assert (one != other).any()
    with pytest.raises(TypeError, match="cannot be pickled: two processes would draw the same"):
        pickle.dumps(plan)


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(capsys):
    root = pathlib.Path(__file__).parents[2]
    for page in ("privacy.md", "private_mathematics.md"):
        text = (root / "docs" / page).read_text(encoding="utf-8")
        namespace = {}
        for block in re.findall(r"```python\n(.+?)```", text, re.DOTALL):
            exec(block, namespace)
        links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not (root / "docs" / link).exists()]
        assert not links
    assert "differentially private" in capsys.readouterr().out
