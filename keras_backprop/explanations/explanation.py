"""What `explain` returns."""

import functools
from dataclasses import dataclass, field
from typing import Any

from keras_backprop.explanations.comparing.compare import compare
from keras_backprop.explanations.comparing.comparison import Comparison
from keras_backprop.explanations.comparing.spelling import Spelling
from keras_backprop.explanations.drawing.plot import plot, svg
from keras_backprop.explanations.numbers.paths import Chain, chain_of
from keras_backprop.explanations.page import to_html
from keras_backprop.explanations.sheet import sheet
from keras_backprop.explanations.writing.markdown import to_markdown
from keras_backprop.explanations.writing.text import to_text
from keras_backprop.report import explanation_page, page


@dataclass(frozen=True, eq=False)
class Explanation:
    """The chain rule of one training step, as data that can be read and drawn. All tensors are NumPy arrays.

    Attributes:
        model: str, the model's name.
        links: list of `Link`, in forward order.
        weights: list of `Weight`, in the order of `model.trainable_weights`.
        loss: float, the error E of the batch: all losses and penalties.
        examples: int, the size of the batch.
        optimizer: str, the compiled optimizer and its learning rate.
        frozen: list of `Weight`, those that are not trained.
        update: `OptimizerFormula`, how the optimizer makes the new weights; None where there is none.
        targets: list of arrays, what the outputs are compared with.
        loss_scale: float, by what mixed precision multiplies E before the backward pass; all gradients here are divided by it.
    """

    model: str
    links: list
    weights: list
    loss: float
    examples: int
    optimizer: str
    frozen: list = field(default_factory=list)
    update: Any = None
    targets: list = field(default_factory=list)
    loss_scale: float = 1.0

    def link(self, path: str) -> Any:
        """The link of this path (the first, for a layer that is used several times).

        Raises:
            KeyError: there is none.
        """
        return _find(self.links, path, "link")

    def weight(self, path: str) -> Any:
        """The trainable or frozen weight of this path or name: "hidden/kernel", "W₁", "w1".

        Raises:
            KeyError: there is none.
        """
        every = [*self.weights, *self.frozen]
        try:
            return _find(every, path, "weight")
        except KeyError:
            name = path.translate(_SUBSCRIPTS).replace("_", "")
            for exactly in (str, str.lower):
                for weight in every:
                    if exactly(str(weight.symbol).translate(_SUBSCRIPTS)) == exactly(name):
                        return weight
            raise

    @functools.cached_property
    def graph(self) -> Any:
        """The numbers of the network one by one, with the derivatives between them: an `explanations.graph.Graph`."""
        from keras_backprop.explanations.numbers.units import graph_of

        return graph_of(self)

    def chain(
        self, weight: Any, *index: int, example: Any = None, convention: str = "row", digits: Any = None
    ) -> Chain:
        """Every path from the error to one weight, as products of named factors with numbers, and their sum.

        Args:
            weight: its name in any spelling (`"w₅"`, `"w5"`, `"w⁽²⁾₁₁"`, `"w2_11"`, `"W₂[0,0]"`, `"output/kernel"`), or a
                variable. Without a layer in their name they are counted layer by layer, and unit by unit within a layer.
            *index: ints from 0, the place in the weight's array, where the name does not say it.
            example: int from 0, the paths of one example only; by default those of all, whose sum is the gradient.
            convention: "row" (w₁₂ leads from unit 1 to unit 2, as in Keras's matrix) or "column" (to unit 1 from unit 2).
            digits: int, decimals in what is printed; by default four.

        Returns:
            A `Chain`: `paths`, `factors`, `gradient`, `table()`, `to_text()`, `to_markdown()`, `plot(path)`.

        Raises:
            KeyError: no such weight; the message says which there are.
            IndexError: the weight has several numbers and none is named, or the index is outside.
        """
        return chain_of(self, Spelling(self, self.graph, convention), weight, index, example, digits)

    def compare(
        self, numbers: Any = None, value: Any = None, /, *, example: Any = None, convention: str = "row", **named: Any
    ) -> Comparison:
        """Compare numbers calculated by hand, or by one's own program, with these; name the mistake that reproduces a wrong one.

            explanation.compare("∂E/∂w₅", 0.0821)        explanation.compare({"w5_new": 0.3589, "δ_o1": 0.1385})
            explanation.compare(dW2=array, db2=array)    explanation.compare(gradients=[array, …], weights=[array, …])

        Args:
            numbers: a dict, name -> number or array, or one name, and then `value` its number. Names in any spelling: activations
                `a⁽¹⁾₂` (`a1_2`, `out_h2`), errors `δ_o1`, gradients `∂E/∂w₅` (`dw5`, `dW2`), factors `∂a₂/∂z₂`, new weights
                `w5_new` (`w₅'`), `E`. A number may be a string: its digits then count as they are written.
            example: int from 0, which example values and errors are of; needed where the batch has several.
            convention: as in `chain`.
            **named: the same by name: `dW=array`; lists in the order of the weights: `gradients=`, `weights=` (new ones).

        Returns:
            A `Comparison`, a list of `Compared`: `verdict` is "exact", "rounding", "mistake" or "unknown", `mistake` a sentence.

        Raises:
            KeyError: no such number; the message says which there are.
            ValueError: a shape that does not fit, nothing to compare, or no example named.
        """
        given = dict(numbers) if isinstance(numbers, dict) else {numbers: value} if numbers is not None else {}
        given |= named
        if not given or (numbers is not None and not isinstance(numbers, dict) and value is None):
            raise ValueError(
                "Nothing to compare: give names and numbers, `compare({'∂E/∂w₂': 0.0571})` or `compare(dW=array)`."
            )
        return compare(self, Spelling(self, self.graph, convention), given, example)

    def to_text(self, *, digits: Any = None, example: Any = None, units: Any = None) -> str:
        """The chain for a terminal: forward pass, backward pass, update. Large tensors by shape, norm and first entries.

        Args:
            digits: int, decimals; by default four, fewer where they say all.
            example: int from 0, the only example whose values are shown; gradients of weights are those of the batch.
            units: list of ints from 0, the only units shown of every layer.

        Raises:
            ValueError, IndexError, TypeError: one of these that makes no sense.
        """
        return to_text(self, digits, example, units)

    def to_markdown(
        self, *, digits: Any = None, example: Any = None, units: Any = None, flavor: Any = None, blank: Any = None
    ) -> str:
        """The same with LaTeX formulas, numbers put in, for a notebook or a page.

        Args:
            digits, example, units: as in `to_text`.
            flavor: None, or "github" for its `math` blocks.
            blank: list of names of numbers, or "gradients", "updates", "values", "all": an exercise sheet, in which these are
                left blank. What is returned is then a `Sheet`, a string whose attribute `solution` is the page with the solution.

        Raises:
            ValueError, IndexError, TypeError: one of these that makes no sense.
            KeyError: a name in `blank` that is none.
        """
        if blank is not None:
            return sheet(self, blank, digits, flavor)
        return to_markdown(self, digits, example, units, flavor)

    def plot(
        self, path: Any, *, example: Any = None, chain: Any = None, digits: Any = None, numbers: Any = None
    ) -> Any:
        """Draw the network with its values and gradients.

        Small dense networks are drawn neuron by neuron, with z, a, ∂E/∂w and ∂E/∂b, recurrent layers in a few steps unrolled in
        time; others layer by layer, with shapes and the norms of the gradients.

        Args:
            path: str or path, the file to write; the suffix says which format: `.png`, `.svg` or `.pdf`.
            example: int from 0, the only one that is shown; by default the one that `chain` is of, or the values of the first
                with the gradients of all.
            chain: a `Chain`, or a weight's name: its paths are lit.
            digits: int, decimals.
            numbers: bool, whether numbers stand on the edges; by default where there is room. Of drawings neuron by neuron only.

        Returns:
            The path, as a `pathlib.Path`.

        Raises:
            ImportError: Matplotlib is not installed.
            ValueError: a suffix that is none of the three; one example of several, where the drawing has norms over all;
                `numbers`, where no edges between units are drawn.
        """
        return plot(self, path, example=example, chain=chain, digits=digits, numbers=numbers)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _repr_svg_(self) -> Any:
        return svg(self)

    def _repr_html_(self) -> str:
        return to_html(self)

    def report(self, path: Any, *, title: Any = None, findings: Any = None) -> Any:
        """Write a page: the drawing, every weight, the derivation with its numbers. One HTML file that needs nothing else.

        Args:
            path: str or path that ends in .html.
            title: str, the heading.
            findings: list of objects with `title`, `evidence`, `remedy`, `path` and `severity`, such as `keras_backprop.diagnose`
                finds; None: the page has no such section.

        Returns:
            The path, as a `pathlib.Path`.

        Raises:
            ValueError: another suffix.
        """
        return page.write(explanation_page(self, title or f"The chain rule of {self.model}", findings), path)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Explanation of '{self.model}': {len(self.links)} links, E = {self.loss:.6g}>"


_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def _find(items, path, what):
    for item in items:
        if item.path == path or item.path.endswith("/" + path):
            return item
    paths = ", ".join(repr(item.path) for item in items)
    raise KeyError(f"There is no {what} {path!r}. Available: {paths}")
