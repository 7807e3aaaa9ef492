"""How recurrent layers are written: one time step forward and one backward. See `RecurrentFormula`.

ConvLSTM: Shi et al., "Convolutional LSTM network" (2015), without the peepholes, which Keras has not.
In `GRU` u and r are the update and reset gates, g the candidate; in `LSTM` i, f, o the gates, g the candidate, k = φ(c).
"""

from dataclasses import replace

from keras_backprop.formula import Cases, Formula, RecurrentFormula
from keras_backprop.rules.layers.rnn.conv_lstm import ConvLSTM
from keras_backprop.rules.layers.rnn.gru import GRU
from keras_backprop.rules.layers.rnn.lstm import LSTM
from keras_backprop.rules.layers.rnn.simple_rnn import SimpleRNN
from keras_backprop.rules.layers.rnn.wrappers import Merge
from keras_backprop.rules.operation_formulas import side_by_side

_PLAIN = {"dropout": 0.0, "recurrent_dropout": 0.0}
_SUMS = {"x": "dz @ W.T", "W": "x.T @ dz", "U": "h0.T @ dz", "b": "examples(dz)"}

_SIMPLE = RecurrentFormula(
    forward=(("z", "x @ W + h0 @ U + b"), ("h", "phi(z)")),
    backward=(("dz", "dh*phi1(z)"), ("dh0", "dz @ U.T")),
    gradients=_SUMS,
    factor=("h", "phi1(z).T*U.T"),
    when=_PLAIN,
)

_LSTM = RecurrentFormula(
    forward=(
        ("zi, zf, zg, zo", "parts(x @ W + h0 @ U + b, 4)"),
        ("i", "sigma(zi)"),
        ("f", "sigma(zf)"),
        ("g", "phi(zg)"),
        ("o", "sigma(zo)"),
        ("c", "f*c0 + i*g"),
        ("k", "phi(c)"),
        ("h", "o*k"),
    ),
    backward=(
        ("dc", "dc + dh*o*phi1(c)"),
        ("dzi", "dc*g*sigma1(zi)"),
        ("dzf", "dc*c0*sigma1(zf)"),
        ("dzg", "dc*i*phi1(zg)"),
        ("dzo", "dh*k*sigma1(zo)"),
        ("dz", "join(dzi, dzf, dzg, dzo)"),
        ("dc0", "dc*f"),
        ("dh0", "dz @ U.T"),
    ),
    gradients=_SUMS,
    factor=("c", "f"),
    when=_PLAIN,
)

_GRU_AFTER = RecurrentFormula(
    forward=(
        ("pu, pr, pg", "parts(x @ W + b, 3)"),
        ("qu, qr, qg", "parts(h0 @ U + b2, 3)"),
        ("u", "sigma(pu + qu)"),
        ("r", "sigma(pr + qr)"),
        ("g", "phi(pg + r*qg)"),
        ("h", "u*h0 + (1 - u)*g"),
    ),
    backward=(
        ("dzu", "dh*(h0 - g)*sigma1(pu + qu)"),
        ("dzg", "dh*(1 - u)*phi1(pg + r*qg)"),
        ("dzr", "dzg*qg*sigma1(pr + qr)"),
        ("dz", "join(dzu, dzr, dzg)"),
        ("dq", "join(dzu, dzr, dzg*r)"),
        ("dh0", "dh*u + dq @ U.T"),
    ),
    gradients={**_SUMS, "U": "h0.T @ dq", "b": "stack(examples(dz), examples(dq))"},
    factor=("h", "u"),
    when={**_PLAIN, "reset_after": True},
)

_GRU_BEFORE = RecurrentFormula(
    forward=(
        ("pu, pr, pg", "parts(x @ W + b, 3)"),
        ("qu, qr", "parts(h0 @ V, 2)"),
        ("u", "sigma(pu + qu)"),
        ("r", "sigma(pr + qr)"),
        ("q", "r*h0"),
        ("g", "phi(pg + q @ Y)"),
        ("h", "u*h0 + (1 - u)*g"),
    ),
    backward=(
        ("dzu", "dh*(h0 - g)*sigma1(pu + qu)"),
        ("dzg", "dh*(1 - u)*phi1(pg + q @ Y)"),
        ("dq", "dzg @ Y.T"),
        ("dzr", "dq*h0*sigma1(pr + qr)"),
        ("dz", "join(dzu, dzr, dzg)"),
        ("dh0", "dh*u + dq*r + join(dzu, dzr) @ V.T"),
    ),
    gradients={**_SUMS, "U": "join(h0.T @ join(dzu, dzr), q.T @ dzg)"},
    factor=("h", "u"),
    when={**_PLAIN, "reset_after": False},
)


def _in_windows(formula: RecurrentFormula) -> RecurrentFormula:
    """The same with convolutions in the place of products: of the window that a position sees."""
    forward = {"x @ W": "window(x) @ W", "h0 @ U": "window(h0) @ U"}
    backward = {
        "dz @ U.T": "spread(dz @ U.T)",
        "dz @ W.T": "spread(dz @ W.T)",
        "x.T @ dz": "window(x).T @ dz",
        "h0.T @ dz": "window(h0).T @ dz",
    }

    def written(text, replaced):
        for product, convolution in replaced.items():
            text = text.replace(product, convolution)
        return text

    return replace(
        formula,
        forward=tuple((letters, written(text, forward)) for letters, text in formula.forward),
        backward=tuple((letters, written(text, backward)) for letters, text in formula.backward),
        gradients={letter: written(text, backward) for letter, text in formula.gradients.items()},
    )


RECURRENT = {
    SimpleRNN: _SIMPLE,
    LSTM: _LSTM,
    ConvLSTM: _in_windows(_LSTM),
    GRU: Cases((_GRU_AFTER, _GRU_BEFORE)),
    Merge: Cases(
        (
            *side_by_side(mode="concat", turns=False),
            Formula("a + b", gradients={"a": "dy", "b": "dy"}, when={"mode": "sum", "turns": False}),
            Formula("(a + b)/2", gradients={"a": "dy/2", "b": "dy/2"}, when={"mode": "ave", "turns": False}),
            Formula("a*b", gradients={"a": "dy*b", "b": "dy*a"}, when={"mode": "mul", "turns": False}),
        )
    ),
}
"""The rules of the cells, in all layers that run them, and what puts two directions together."""
