"""The lines by which the optimizers of Keras make a weight new, as text that can be evaluated (see `optimizers.py`).

Of each optimizer: the lines; letter -> the optimizer's attribute; letter -> the list of its variables. Some go by the weight's
shape. The sources are the `update_step` of Keras's optimizers.
"""

import re
from typing import Any

import keras

__all__ = ["STEPS"]

_MOMENTS = [("m", "beta1*m + (1 - beta1)*g"), ("v", "beta2*v + (1 - beta2)*g**2")]


def _sgd(o, weight):
    if not o.momentum:
        return [("w", "w - eta*g")], {}, {}
    last = "w + mu*m - eta*g" if o.nesterov else "w + m"
    return [("m", "mu*m - eta*g"), ("w", last)], {"mu": "momentum"}, {"m": "momentums"}


def _rmsprop(o, weight):
    steps, state = [("v", "rho*v + (1 - rho)*g**2")], {"v": "_velocities"}
    names, under = {"rho": "rho", "eps": "epsilon"}, "v + eps"
    if o.centered:
        steps.append(("gm", "rho*gm + (1 - rho)*g"))
        state["gm"], under = "_average_gradients", "v - gm**2 + eps"
    if o.momentum > 0:
        names["mu"], state["m"] = "momentum", "_momentums"
        return [*steps, ("m", f"mu*m + eta*g/sqrt({under})"), ("w", "w - m")], names, state
    return [*steps, ("w", f"w - eta*g/sqrt({under})")], names, state


def _adam(o, weight):
    names, state = {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}, {"m": "_momentums", "v": "_velocities"}
    root, more = "sqrt(v)", []
    if o.amsgrad:
        root, more, state["u"] = "sqrt(u)", [("u", "max(u, v)")], "_velocity_hats"
    rate = ("d", "eta*sqrt(1 - beta2**t)/(1 - beta1**t)")
    return [*_MOMENTS, *more, rate, ("w", f"w - d*m/({root} + eps)")], names, state


def _adadelta(o, weight):
    state = {"v": "_accumulated_grads", "u": "_accumulated_delta_vars"}
    steps = [("v", "rho*v + (1 - rho)*g**2"), ("d", "-sqrt(u + eps)*g/sqrt(v + eps)"), ("u", "rho*u + (1 - rho)*d**2"),
             ("w", "w + eta*d")]  # fmt: skip
    return steps, {"rho": "rho", "eps": "epsilon"}, state


def _adagrad(o, weight):
    return [("v", "v + g**2"), ("w", "w - eta*g/sqrt(v + eps)")], {"eps": "epsilon"}, {"v": "_accumulators"}


def _adamax(o, weight):
    steps = [_MOMENTS[0], ("u", "max(beta2*u, abs(g))"), ("w", "w - eta*m/((1 - beta1**t)*(u + eps))")]
    return steps, {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}, {"m": "_m", "u": "_u"}


def _nadam(o, weight):
    # The product of the factors uᵢ of all updates before is one of the optimizer's variables.
    steps = [*_MOMENTS, ("p", "beta1*(1 - 0.5*0.96**t)"), ("q", "beta1*(1 - 0.5*0.96**(t + 1))"), ("c", "c*p"),
             ("d", "q*m/(1 - c*q) + (1 - p)*g/(1 - c)"), ("w", "w - eta*d/(sqrt(v/(1 - beta2**t)) + eps)")]  # fmt: skip
    names = {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}
    if o.built:
        names["c"] = "_u_product"
    else:
        steps.insert(2, ("c", "1"))
    return steps, names, {"m": "_momentums", "v": "_velocities"}


def _lion(o, weight):
    steps = [("w", "w - eta*sign(beta1*m + (1 - beta1)*g)"), ("m", "beta2*m + (1 - beta2)*g")]
    return steps, {"beta1": "beta_1", "beta2": "beta_2"}, {"m": "_momentums"}


def _lamb(o, weight):
    steps = [*_MOMENTS, ("d", "m/(1 - beta1**t)/(sqrt(v/(1 - beta2**t)) + eps)"), ("w", "w - eta*trust(w, d)*d")]
    return steps, {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}, {"m": "_momentums", "v": "_velocities"}


def _adafactor(o, weight):
    begin = [("b", "1 - t**k"), ("q", "g**2 + eps")]
    if len(weight.shape) < 2:
        second, state = [("v", "b*v + (1 - b)*q")], {"v": "_v"}
    else:  # the mean squares of rows and columns in the place of those of every number
        begin += [] if o.built else [("r", "0"), ("u", "0")]
        second = [("r", "b*r + (1 - b)*rows(q)"), ("u", "b*u + (1 - b)*columns(q)"), ("v", "outer(r/mean(r), u)")]
        state = {"r": "_r", "u": "_c"} if o.built else {}
    last = [("d", "g/sqrt(v)"), ("w", "w - max(c, rms(w))*min(eta, 1/sqrt(t))*d/max(1, rms(d)/s)")]
    names = {"k": "beta_2_decay", "eps": "epsilon_1", "c": "epsilon_2", "s": "clip_threshold"}
    return [*begin, *second, *last], names, state


def _muon(o, weight):
    rate = ("e", "eta*q") if o.adam_lr_ratio != 1 else None
    if adam_of_muon(o, weight):
        last = ("d", f"{'e' if rate else 'eta'}*sqrt(1 - beta2**t)/(1 - beta1**t)")
        names = {
            "beta1": "adam_beta_1",
            "beta2": "adam_beta_2",
            "eps": "epsilon",
            **({"q": "adam_lr_ratio"} if rate else {}),
        }
        steps = [*_MOMENTS, *([rate] if rate else []), last, ("w", "w - d*m/(sqrt(v) + eps)")]
        return steps, names, {"m": "momentums", "v": "adam_velocities"}
    direction = "g + mu*m" if o.nesterov else "m"
    size, names = ("", {}) if o.rms_rate is None else ("*s*sqrt(longest(w))", {"s": "rms_rate"})
    steps = [("m", "mu*m + g"), ("d", f"orthogonal({direction}, a, b, c, k)"), ("w", f"w - eta{size}*d")]
    names |= {"mu": "momentum", "a": "muon_a", "b": "muon_b", "c": "muon_c", "k": "ns_steps"}
    return steps, names, {"m": "momentums"}


def adam_of_muon(o: Any, weight: Any) -> bool:
    """Whether Muon gives this weight to Adam: one that is no matrix, one of an embedding, one that it was told to."""
    embedding = o.exclude_embeddings and "embedding" in weight.path.lower()
    return len(weight.shape) != 2 or embedding or any(re.search(word, weight.path) for word in o.exclude_layers)


def _schedule_free(o, weight):
    rate, names = "eta", {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}
    if o.warmup_steps > 0:
        rate, names["k"] = "eta*min(1, t/k)", "warmup_steps"
    start = [] if o.built else [("m", "w")]
    # In Keras, too, x is made of the new m: `momentum.value` is read when it is used.
    steps = [*start, _MOMENTS[1], ("m", f"m - {rate}*g/(sqrt(v/(1 - beta2**t)) + eps)"), ("x", "(w - (1 - beta1)*m)/beta1"),
             ("x", "(1 - 1/t)*x + 1/t*m"), ("w", "(1 - beta1)*m + beta1*x")]  # fmt: skip
    return steps, names, {"m": "_momentums", "v": "_velocities"}


def _ftrl(o, weight):
    steps = [("h", "g + 2*s*w"), ("q", "v + g**2"), ("u", "u + h - (q**(-p) - v**(-p))/eta*w"),
             ("v", "q"), ("w", "(max(-k, min(k, u)) - u)/(q**(-p)/eta + 2*(c + b/(2*eta)))")]  # fmt: skip
    names = {"p": "learning_rate_power", "k": "l1_regularization_strength", "c": "l2_regularization_strength",
             "s": "l2_shrinkage_regularization_strength", "b": "beta"}  # fmt: skip
    return steps, names, {"v": "_accumulators", "u": "_linears"}


STEPS: dict[Any, Any] = {
    keras.optimizers.SGD: _sgd, keras.optimizers.RMSprop: _rmsprop, keras.optimizers.Adam: _adam, keras.optimizers.AdamW: _adam,
    keras.optimizers.Adadelta: _adadelta, keras.optimizers.Adagrad: _adagrad, keras.optimizers.Adamax: _adamax,
    keras.optimizers.Nadam: _nadam, keras.optimizers.Lion: _lion, keras.optimizers.Lamb: _lamb, keras.optimizers.Ftrl: _ftrl,
    keras.optimizers.Adafactor: _adafactor, keras.optimizers.Muon: _muon, keras.optimizers.ScheduleFreeAdamW: _schedule_free,
}  # fmt: skip
