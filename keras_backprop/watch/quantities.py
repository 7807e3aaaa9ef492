"""The names of what can be watched, and what users may write for them."""

from typing import Any

ACTIVATION, DELTA, GRADIENT, WEIGHT = "activation", "delta", "gradient", "weight"

ALL = "*"
"""The path of what is of all weights together."""

STATISTICS = ("norm", "mean", "std", "min", "max", "zeros", "nonfinite", "histogram")
"""Of activations, deltas and gradients alike."""

SPECIAL = {
    "gain": DELTA,
    "delta_by_step": DELTA,
    "dead": ACTIVATION,
    "saturated": ACTIVATION,
    "scaled_norm": GRADIENT,
    "given_norm": GRADIENT,
    "clipped_norm": GRADIENT,
    "global_norm": GRADIENT,
    "clipped_global_norm": GRADIENT,
    "example_variance": GRADIENT,
    "noise_scale": GRADIENT,
    "example_cosine": GRADIENT,
    "update_ratio": WEIGHT,
}
"""Of one of them each."""

OF_EXAMPLES = ("example_variance", "noise_scale", "example_cosine")
"""How the gradients of the single examples lie around their mean."""

ON_REQUEST = ("histogram", *OF_EXAMPLES)
"""Not part of "all"."""

VECTORS = ("histogram", "delta_by_step")
"""Whose values are arrays."""


def parsed(quantities: Any) -> dict[str, set]:
    """What users write for quantities.

    Args:
        quantities: str or list of str: a name such as `"norm"`, the same of one kind of tensor, `"delta.norm"`, or `"all"`,
            which is everything but histograms and what is asked of single examples.

    Returns:
        A dict, "activation", "delta", "gradient" or "weight" -> set of names.

    Raises:
        ValueError: another name, or none.
        TypeError: no strings.
    """
    given = [quantities] if isinstance(quantities, str) else quantities
    if not isinstance(given, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"`quantities` must be names, a tuple of strings. Received: quantities={quantities!r}")
    if not given:
        raise ValueError(f"`quantities` must name at least one. {_names()} Received: quantities={quantities!r}")
    wanted: dict[str, set] = {of: set() for of in (ACTIVATION, DELTA, GRADIENT, WEIGHT)}
    for name in given:
        for of, quantity in _meant(name):
            wanted[of].add(quantity)
    return wanted


def _meant(name):
    kind, _, quantity = name.rpartition(".")
    if name == "all":
        statistics = [(of, q) for of in (ACTIVATION, DELTA, GRADIENT) for q in STATISTICS if q not in ON_REQUEST]
        return statistics + [(of, q) for q, of in SPECIAL.items() if q not in ON_REQUEST]
    kinds = [kind] if kind else [ACTIVATION, DELTA, GRADIENT]
    if quantity in STATISTICS and kind in ("", ACTIVATION, DELTA, GRADIENT):
        return [(of, quantity) for of in kinds]
    if quantity in SPECIAL and kind in ("", SPECIAL[quantity]):
        return [(SPECIAL[quantity], quantity)]
    raise ValueError(f"There is no quantity {name!r}. {_names()}")


def _names():
    statistics, special = ", ".join(map(repr, STATISTICS)), ", ".join(map(repr, SPECIAL))
    return (
        f"There are: {statistics}, each also of one kind of tensor only, such as 'delta.norm', 'activation.norm' or "
        f"'gradient.norm'; {special}; and 'all', which is everything but {', '.join(map(repr, ON_REQUEST))}."
    )
