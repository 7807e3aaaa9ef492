"""How attention is written: scores, weights P, output.

Additive attention: Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate" (2015).
"""

from keras import layers

from keras_backprop._keras import ops
from keras_backprop.formula import Cases, Formula
from keras_backprop.rules.operation_formulas import is_number

_PLAIN = {"dropout": 0.0, "outputs": 1, "masks_queries": False}
_DOT = {"class": "Attention", "score_mode": "dot", "use_scale": False, **_PLAIN}
_ADDITIVE = {"class": "AdditiveAttention", **_PLAIN}


def _attention(times, inputs, when, mask=False):
    """Scores, weights P, output. With two inputs the values are the keys as well. A mask m is −∞ where nothing is seen."""
    keys = "v" if inputs == "qv" else "k"
    weights = f"softmax({times}q @ {keys}.T{' + m' if mask else ''})"
    gradients = {"q": f"{times}dS @ {keys}", "v": "P.T @ dy"}
    if keys == "k":
        gradients["k"] = f"{times}dS.T @ q"
    else:
        gradients["v"] += f" + {times}dS.T @ q"
    parts = (("P", weights), ("dP", "dy @ v.T"), ("dS", "P*(dP - total(P*dP))"))
    return Formula("P @ v", gradients=gradients, when=when, inputs=inputs, parts=parts)


def _additive(inputs, when, mask=False):
    """Scores of every query q with every key k, weights P, output. With two inputs the values are the keys as well."""
    keys = inputs[-1]
    of_keys = "over_queries(dz)"
    gradients = {"q": "over_keys(dz)", "v": "P.T @ dy", "gamma": "over_pairs(dS, u)"}
    gradients |= {"k": of_keys} if keys == "k" else {"v": f"P.T @ dy + {of_keys}"}
    parts = (
        ("u", f"tanh(pairs(q, {keys}))"),
        ("P", f"softmax(over_features(gamma*u){' + m' if mask else ''})"),
        ("dP", "dy @ v.T"),
        ("dS", "P*(dP - total(P*dP))"),
        ("dz", "each(dS)*gamma*(1 - u**2)"),
    )
    return Formula("P @ v", gradients=gradients, when=when, inputs=inputs, parts=parts)


ATTENTION = {
    (layers.Attention,): Cases(
        (
            _attention("", "qvk", {**_DOT, "inputs": 3, "masked": False}),
            _attention("", "qvk", {**_DOT, "masked": True, "inputs": lambda count: count > 2}, mask=True),
            _attention("", "qv", {**_DOT, "inputs": 2, "masked": False}),
            _additive("qvk", {**_ADDITIVE, "inputs": 3, "masked": False}),
            _additive("qvk", {**_ADDITIVE, "inputs": lambda count: count > 2, "masked": True}, mask=True),
            _additive("qv", {**_ADDITIVE, "inputs": 2, "masked": False}),
        )
    ),
    (ops.DotProductAttention,): Cases(
        (
            _attention("scale*", "qkv", {"masked": False, "biased": False, "scale": is_number}),
            _attention("scale*", "qkv", {"masked": True, "biased": False, "scale": is_number}, mask=True),
        )
    ),
}
"""`AdditiveAttention` shares the rule of `Attention`."""
