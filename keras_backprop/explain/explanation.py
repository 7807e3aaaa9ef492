"""What `explain` returns."""

from dataclasses import dataclass
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
    """

    model: str
    links: list
    weights: list
    loss: float
    examples: int
    optimizer: str

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
        from keras_backprop.report import explanation_page, page

        return page.write(explanation_page(self, title or f"The chain rule of {self.model}", findings), path)

    def _repr_html_(self) -> str:
        from keras_backprop.report.notebook import markdown_html

        return markdown_html(self.to_markdown())

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

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
