"""What `explain` returns."""

from dataclasses import dataclass, field
from typing import Any


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
    """

    model: str
    links: list
    weights: list
    loss: float
    examples: int
    optimizer: str
    frozen: list = field(default_factory=list)
    update: Any = None

    def link(self, path: str) -> Any:
        """The link of this path (the first, for a layer that is used several times).

        Raises:
            KeyError: there is none.
        """
        return _find(self.links, path, "link")

    def weight(self, path: str) -> Any:
        """The trainable weight of this path.

        Raises:
            KeyError: there is none.
        """
        return _find(self.weights, path, "trainable weight")

    def to_text(self) -> str:
        """The chain for a terminal: forward pass, backward pass, update. Large tensors by shape, norm and first entries."""
        from keras_backprop.explain.text import to_text

        return to_text(self)

    def to_markdown(self) -> str:
        """The same with LaTeX formulas, numbers put in, for a notebook or a page."""
        from keras_backprop.explain.markdown import to_markdown

        return to_markdown(self)

    def plot(self, path: str) -> Any:
        """Draw the network with its values and gradients.

        Small dense networks are drawn neuron by neuron, with z, a, ∂E/∂w and ∂E/∂b; others layer by layer, with shapes and
        the norms of the gradients.

        Args:
            path: str or path, the file to write; the suffix says which format: `.png`, `.svg` or `.pdf`.

        Returns:
            The path, as a `pathlib.Path`.

        Raises:
            ImportError: Matplotlib is not installed.
            ValueError: a suffix that is none of the three.
        """
        from keras_backprop.explain.plot import plot

        return plot(self, path)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Explanation of '{self.model}': {len(self.links)} links, E = {self.loss:.6g}>"


def _find(items, path, what):
    for item in items:
        if item.path == path or item.path.endswith("/" + path):
            return item
    paths = ", ".join(repr(item.path) for item in items)
    raise KeyError(f"There is no {what} {path!r}. Available: {paths}")
