"""The nouns of an explanation: a link of the chain, a weight, and the symbols they are written with."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class Symbol(NamedTuple):
    """The name of a quantity in a formula: `Symbol("z", 2)` is z₂.

    Attributes:
        letter: str, a letter, or a path where the notation has no letter for the quantity.
        subscript: int, or None where there is only one.
        above: bool, whether the number is written above, z⁽²⁾: where a number below says which time step.
        role: str, a letter below, as in W_Q: what the weight is for; the number then stands above.
    """

    letter: str
    subscript: int | None = None
    above: bool = False
    role: str = ""

    def __str__(self) -> str:
        if self.above or self.role:
            above = "" if self.subscript is None else f"⁽{str(self.subscript).translate(_SUPERSCRIPTS)}⁾"
            return f"{self.letter}{above}{self.role and f'_{self.role}'}"
        return self.letter + ("" if self.subscript is None else str(self.subscript).translate(_SUBSCRIPTS))

    @property
    def latex_letter(self) -> str:
        """The letter alone as LaTeX."""
        return _GREEK.get(self.letter, self.letter) if len(self.letter) == 1 else text_of(self.letter)

    @property
    def latex(self) -> Any:
        """As LaTeX: `z_2`, `w_{12}`, `\\text{cell/gamma}`."""
        letter = self.latex_letter
        if self.role:
            above = "" if self.subscript is None else f"^{{({self.subscript})}}"
            return f"{letter}{above}_{self.role}"
        if self.subscript is None:
            return letter
        if self.above:
            return f"{letter}^{{({self.subscript})}}"
        return f"{letter}_{self.subscript}" if self.subscript < 10 else f"{letter}_{{{self.subscript}}}"


WEIGHTS = "wWuUbDPγβαC"
"""The letters of weights."""

_GREEK = {"γ": r"\gamma", "β": r"\beta", "α": r"\alpha"}


def text_of(name: str) -> str:
    """A name as a word in a formula. Some renderers take no underscore in `\\text`: a no-break space stands for it."""
    return rf"\text{{{name.replace('_', NO_BREAK)}}}"


NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, eq=False)
class Link:
    """One factor of the chain: what ran forward, and what its rule made of the gradient. All tensors are NumPy arrays.

    Attributes:
        path: str, the layer's path; of a function that a layer ends in `<layer's path>/<function's name>`.
        kind: str, "layer", "activation", "op", "loss" or "regularizer".
        rule: str, the name of the backward rule.
        op: the layer, operation or function itself.
        inputs, outputs: tuples of the tensors that went in and came out. Of a loss: targets, predictions (and the logits,
            where the loss is computed from them), and the error of each example.
        input_symbols, output_symbols: tuples of `Symbol`, their names in the formulas. A tensor's name leads from the
            link it comes out of to the links it goes into. None for a constant.
        upstream: tuple, ∂E/∂output for each output; None where the error does not depend on it along this link.
        downstream: tuple, this link's contribution to ∂E/∂input for each input; None where there is none.
        local_derivative: the derivative of an elementwise function, shape of the output. Of a loss ∂E/∂a, with
            sample weights and the reduction. None for other links: their derivative is a matrix.
        weights: dict, the layer's weights before the update, by attribute name (`"kernel"`).
        weight_gradients: dict, this link's contribution to ∂E/∂weight, by attribute name.
        updates: dict, the new values that the compiled optimizer would give the weights, by attribute name.
        deltas: tuple, of a recurrent layer: the errors at every time step, in the order of the steps, each of shape
            `(T, n, …)`. Of SimpleRNN and LSTM ∂E/∂z, the error of what goes into the activations; of GRU that and ∂E/∂h.
        formula: how the rule that ran is written, a `Formula` or `LossFormula`; None where it is not known.
        known: bool, whether the rule that ran is one that carries formulas, if not for these options: no other in its place.
        options: dict, the call's options: numbers, words, None.
        trained: tuple of the attribute names of the weights that are trained.
        jacobian: of a small link without weights a function that gives all its derivatives (see `jacobian_of`); else None.
        steps: int, of how many time steps the link saw each by itself (`TimeDistributed`): the second axis of its tensors; else
            None.
    """

    path: str
    kind: str
    rule: str
    op: Any
    inputs: tuple
    outputs: tuple
    input_symbols: tuple
    output_symbols: tuple
    upstream: tuple = ()
    downstream: tuple = ()
    local_derivative: np.ndarray | None = None
    weights: dict = field(default_factory=dict)
    weight_gradients: dict = field(default_factory=dict)
    updates: dict = field(default_factory=dict)
    weight_symbols: dict = field(default_factory=dict)
    deltas: tuple = ()
    formula: Any = None
    options: dict = field(default_factory=dict)
    trained: tuple = ()
    jacobian: Any = None
    known: bool = False
    steps: int | None = None

    @property
    def z(self) -> Any:
        """What the activation of a dense layer or a convolution is applied to; None for other links."""
        return self._output("z")

    @property
    def a(self) -> Any:
        """What the activation of a dense layer or a convolution gives; None for other links."""
        return self._output("a")

    def of_one_step(self) -> "Link":
        """The link as it saw the first time step, without what all steps together give; itself, where it saw them at once."""
        if self.steps is None:
            return self
        one: Any = {name: tuple(None if x is None else x[:, 0] for x in getattr(self, name)) for name in _PER_STEP}
        return replace(self, **one, weight_gradients={}, jacobian=None, steps=None)

    @property
    def shape(self) -> Any:
        """Shape of the (first) output."""
        return tuple(self.outputs[0].shape)

    @property
    def dtype(self) -> Any:
        """Name of the dtype of the (first) output."""
        return self.outputs[0].dtype.name

    def _output(self, letter):
        symbol = self.output_symbols[0] if self.output_symbols else None
        return self.outputs[0] if symbol is not None and symbol.letter == letter else None

    def __repr__(self) -> str:
        names = ", ".join(str(s) for s in self.output_symbols)
        return f"<Link {self.path}: {self.kind}, {names} of shape {self.shape}>"


_PER_STEP = ("inputs", "outputs", "upstream", "downstream")


@dataclass(frozen=True, eq=False)
class Weight:
    """A trainable weight and what this batch would do to it.

    Attributes:
        path: str, the variable's path.
        symbol: `Symbol`, its name in the formulas.
        value: array, before the update.
        gradient: array of the same shape, ∂E/∂weight summed over all its uses and penalties; None where the error does
            not depend on it.
        updated: array, the value that the compiled optimizer would give it.
        uses: int, how many links contribute to the gradient.
        trained: bool, False for a frozen weight.
    """

    path: str
    symbol: Symbol
    value: np.ndarray
    gradient: np.ndarray | None
    updated: np.ndarray
    uses: int
    trained: bool = True

    def __repr__(self) -> str:
        return f"<Weight {self.symbol}: {self.path} of shape {self.value.shape}>"
