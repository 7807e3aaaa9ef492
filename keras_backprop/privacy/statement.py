"""What a plan guarantees, in words for somebody who has to answer for it."""

import math
from typing import Any

from keras_backprop.privacy.past import UNKNOWN
from keras_backprop.privacy.randomness import GIVEN, SECRET

_NEIGHBOURS = {
    "add or remove one": "by the addition or removal of one example",
    "replace one": "by the replacement of one example by another",
    "zero out one": "by one example, whose gradients count in one and are left out in the other",
}


def statement(plan: Any, steps: int) -> str:
    """A paragraph on a plan after a number of steps.

    Args:
        plan: a `Plan`.
        steps: int.
    """
    shuffled = plan.sampling == "shuffled"
    neighbours = plan.neighbours
    if shuffled and neighbours == "add or remove one":  # the others' batches are taken to be the same
        neighbours = "zero out one"
    epsilon = plan.epsilon(steps)
    if math.isinf(epsilon):
        guarantee = "Nothing is guaranteed: the noise multiplier is 0."
    else:
        guarantee = (
            f"The weights of this model after {steps:,} steps of private training, and everything computed from them alone, are "
            f"(ε = {epsilon:.3g}, δ = {plan.delta:.3g})-differentially private with respect to the training examples: two data "
            f"sets that differ {_NEIGHBOURS[neighbours]} lead to any set of results with probabilities that differ by a factor "
            f"of at most e^ε ({math.exp(min(epsilon, 700)):.3g}), but for δ. This holds for one example, not for all that one "
            "person may have contributed."
        )
    return " ".join([guarantee, _mechanism(plan), *_sampling(plan, steps), _random_numbers(plan), _mixing(plan), _NOT])


def _mechanism(plan):
    clipping = {
        "Flat": f"clipped to the norm {plan.clipping_norm}",
        "PerLayer": f"clipped layer by layer ({plan.clipping_norm}; together {plan.sensitivity})",
        "Adaptive": "clipped to a norm that follows a private estimate of a quantile of the norms",
    }[type(plan.clipping).__name__]
    return (
        f"In each step the gradients of the drawn examples, each {clipping} (sample weights included), are added up, Gaussian "
        f"noise of {plan.noise_multiplier:.4g} times that norm is added once, and the result is divided by "
        f"{plan.expected_batch_size:,}, whatever was drawn."
    )


def _sampling(plan, steps):
    n, size = f"{plan.examples:,}", f"{plan.expected_batch_size:,}"
    if plan.past.given:
        return [
            f"The batches of {'some' if plan.past.drawn else 'the'} steps were chosen by the calling program, not by the "
            "plan: the "
            f"figure holds only if they were drawn as it assumes ({plan.sampling} sampling of {n} examples, {size} expected)."
        ]
    if plan.sampling == "shuffled":
        return [
            f"The {n} examples were shuffled and cut into batches of {size}, so that each took part once an epoch. No "
            "amplification by sampling is claimed for this: the epochs are composed as Gaussian mechanisms."
        ]
    if plan.expected_batch_size == plan.examples:
        return [f"Each step used all {n} examples; nothing was sampled."]
    return [
        f"Each example was in the batch of a step with the chance {size}/{n}, independently of all others and of all other "
        "steps (Poisson "
        f"sampling); of a batch larger than {plan.largest_batch_size:,} a random part of that size was used, which the figure "
        "takes into account."
    ]


def _random_numbers(plan):
    said = {
        SECRET: "a counter-based generator, Philox, which is not cryptographic, with a secret seed from the operating system",
        GIVEN: "a seed that was given: nothing is guaranteed against anybody who knows it",
        UNKNOWN: "a source of which nothing was written down with the steps: nothing is guaranteed against anybody who knows it",
    }
    sources = [
        said.get(source, f"the generator that was given, `{source}`") for source in sorted(plan.past.random_numbers)
    ]
    return f"The random numbers come from {'; and from '.join(sources)}."


def _mixing(plan):
    tried = "it was tried on a few examples before the first step" if plan.past.tried else "it was not tried"
    return (
        "That no example changes what another contributes to the sum is known of the layers and losses of Keras; of others "
        f"{tried}, and whoever wrote them answers for it."
    )


_NOT = (
    "The number of examples and all settings count as public. Not private, and not covered: losses and metrics in the "
    "history and in logs, what callbacks decide by them (early stopping, learning rates, a choice of checkpoints), "
    "validation on private data, what observers, recorders of examples and checkpoints of the optimizer's accumulators hold, "
    "and the plan's random state in backups. Not counted: other trainings on the same data, the search for "
    "hyper-parameters, and what was computed from the data beforehand, such as means for normalization or vocabularies. "
    "Computed in floating-point numbers; attacks on their rounding are not considered, nor that no number of the plan's own "
    "generator is further from 0 than 7.81 standard "
    "deviations (8.66 for weights of double precision): one should be, with a chance of 6·10⁻¹⁵, for every weight in every step, "
    "which must be small against δ."
)
