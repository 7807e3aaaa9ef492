"""How much a number of steps gives away: (ε, δ) by the library dp-accounting, which is loaded when it is first asked.

A mechanism is (ε, δ)-differentially private if for all data sets D, D′ that are neighbours and all sets S of results
P(M(D) ∈ S) ≤ e^ε·P(M(D′) ∈ S) + δ (Dwork et al., "Calibrating Noise to Sensitivity", 2006). A step here is the sum of the
gradients of some examples, each clipped to the norm C, with Gaussian noise of standard deviation σ·C; σ is the noise multiplier.
"""

import functools
import importlib
import logging
import math
from typing import Any, NamedTuple

NEIGHBOURS = ("add or remove one", "replace one", "zero out one")
SAMPLINGS = ("poisson", "shuffled")
ACCOUNTANTS = ("pld", "rdp")


class Mechanism(NamedTuple):
    """What is released, step after step.

    Attributes:
        examples: int, how many examples there are.
        expected_batch_size: int.
        largest_batch_size: int, with Poisson sampling: of a larger batch a random part of this size is taken.
        noise_multiplier: float, the noise's standard deviation over the clipping norm.
        sampling: "poisson" or "shuffled".
        neighbours: one of `NEIGHBOURS`.
    """

    examples: int
    expected_batch_size: int
    largest_batch_size: int
    noise_multiplier: float
    sampling: str
    neighbours: str


@functools.lru_cache(maxsize=256)
def epsilon(mechanism: Mechanism, steps: int, delta: float, accountant: str = "pld") -> float:
    """ε after a number of steps.

    Poisson-sampled steps are composed as such, of batches larger than the largest a random part (Ganesh, "Tight Group-Level DP
    Guarantees for DP-SGD with Sampling via Mixture of Gaussians", 2024, and its sequel on truncated batches, arXiv 2508.15089,
    as dp-accounting has them). Of shuffled batches no amplification is claimed: an example takes part once an epoch, so an epoch
    is one Gaussian mechanism.

    Args:
        mechanism: a `Mechanism`.
        steps: int, 0 or more.
        delta: float between 0 and 1.
        accountant: "pld", by privacy loss distributions (Koskela et al., 2020; Doroshenko et al., 2022), which is tight; or
            "rdp", by Rényi divergences (Mironov, 2017), for comparison: looser, and of batches that are not truncated.

    Raises:
        ImportError: dp-accounting is not installed.
        ValueError: another accountant, or one that knows nothing of these neighbours.
    """
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"`accountant` must be one of {ACCOUNTANTS}. Received: accountant={accountant!r}")
    if not steps:
        return 0.0
    if not mechanism.noise_multiplier:
        return math.inf
    if accountant == "rdp" and mechanism.neighbours == "replace one":
        raise ValueError(
            "The RDP accountant of dp-accounting knows nothing of neighbours that differ by the replacement of one example. Use "
            'accountant="pld".'
        )
    dp = library()
    relation = {
        "add or remove one": dp.NeighboringRelation.ADD_OR_REMOVE_ONE,
        "replace one": dp.NeighboringRelation.REPLACE_ONE,
        "zero out one": dp.NeighboringRelation.REPLACE_SPECIAL,
    }[mechanism.neighbours]
    event, count = _event(dp, mechanism, steps, exact=accountant == "pld")
    kind = {"pld": "pld.PLDAccountant", "rdp": "rdp.RdpAccountant"}[accountant].split(".")
    ledger = getattr(importlib.import_module(f"dp_accounting.{kind[0]}"), kind[1])(neighboring_relation=relation)
    with _silent():
        ledger.compose(event, count)
        return max(0.0, float(ledger.get_epsilon(delta)))


def _event(dp, m, steps, exact):
    """What dp-accounting calls this, and how often it happens."""
    gaussian = dp.GaussianDpEvent(m.noise_multiplier)
    if m.sampling == "shuffled":
        return gaussian, -(-steps // -(-m.examples // m.expected_batch_size))
    if m.expected_batch_size == m.examples:
        return gaussian, steps
    q = m.expected_batch_size / m.examples
    if not exact or m.largest_batch_size >= m.examples:
        return dp.PoissonSampledDpEvent(q, gaussian), steps
    return dp.TruncatedSubsampledGaussianDpEvent(m.examples, q, m.largest_batch_size, m.noise_multiplier), steps


def noise_for(mechanism: Mechanism, steps: int, delta: float, target: float) -> float:
    """A noise multiplier with which a number of steps stays within ε = `target`, and comes within 0.2 % of it.

    Args:
        mechanism: a `Mechanism`; its noise multiplier is not looked at.
        steps: int.
        delta, target: floats.

    Raises:
        ValueError: no noise multiplier up to 10,000 is enough.
    """

    def spent(noise, largest=mechanism.examples):  # truncated batches take the accountant ten times as long
        return epsilon(mechanism._replace(noise_multiplier=noise, largest_batch_size=largest), steps, delta)

    enough, replaced = 0.25, mechanism.neighbours == "replace one"
    while True:  # by the quick bound, which knows nothing of a replacement: it changes twice as much
        start = mechanism._replace(noise_multiplier=enough, neighbours="add or remove one")
        if epsilon(start, steps, delta, "rdp") <= target:
            break
        enough *= 1.2
        if enough > 1e4:
            raise ValueError(
                f"No noise multiplier up to 10,000 keeps {steps} steps within ε = {target:g} at δ = {delta:g}."
            )
    enough *= 1 + replaced
    points = {noise: spent(noise) for noise in (enough, enough / 1.3)}
    for _ in range(30):
        above, below = (min(points, key=lambda s: abs(math.log(points[s] / target) - d)) for d in (0.0, 0.2))
        high = min((s for s in points if points[s] <= target), default=max(points))
        if 0.998 * target <= points[high] <= target:
            break
        if above == below:
            below = next(s for s in points if s != above)
        # ε is nearly a power of σ.
        slope = math.log(points[above] / points[below]) / math.log(above / below)
        guess = above * (0.999 * target / points[above]) ** (1 / slope)
        points[guess] = spent(guess)
    while spent(high, largest=mechanism.largest_batch_size) > target:
        high *= 1.001
    return high


def largest_batch(examples: int, expected: int, chance: float) -> int:
    """The smallest size that a Poisson-sampled batch exceeds with at most this chance."""
    if expected == examples:
        return examples
    low, high = expected, examples
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tail(examples, expected, middle) <= chance else (middle + 1, high)
    return low


def tail(examples: int, expected: int, size: int) -> float:
    """The chance that a Poisson-sampled batch is larger than `size`."""
    library()
    return float(
        importlib.import_module("scipy.stats").binom.sf(size, examples, expected / examples)
    )  # it comes with it


def library() -> Any:
    """dp-accounting.

    Raises:
        ImportError: it is not installed, and how it is.
    """
    try:
        with _silent():
            return importlib.import_module("dp_accounting")
    except ImportError as error:
        raise ImportError(
            "Differential privacy is accounted for by the library dp-accounting: pip install 'keras-backprop[privacy]'"
        ) from error


class _silent:  # noqa: N801
    """For the duration of the block, neither warnings nor what absl logs."""

    def __enter__(self):
        import warnings

        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        self._log = logging.getLogger("absl")
        self._level = self._log.level
        self._log.setLevel(logging.ERROR)

    def __exit__(self, *raised):
        self._log.setLevel(self._level)
        self._warnings.__exit__(*raised)
