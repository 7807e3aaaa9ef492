"""Draw an explanation: neuron by neuron where the network is small enough, else layer by layer."""

from pathlib import Path

from keras_backprop.explanations.observing.asked import place
from keras_backprop.explanations.writing.notation import latex_number, precision

SUFFIXES = (".png", ".svg", ".pdf")


def plot(explanation, path, example=None, chain=None, digits=None, numbers=None):
    """Write the drawing of an explanation to a file. See `Explanation.plot`."""
    path = _checked(path)
    return drawing(explanation, example, chain, digits, numbers).save(path)


def drawing(explanation, example=None, chain=None, digits=None, numbers=None):
    """The drawing, a `Canvas`."""
    require_matplotlib("Drawing a network")
    from keras_backprop.explanations.drawing import blocks, neurons, timeline

    if isinstance(chain, str):
        chain = explanation.chain(chain)
    if example is not None:
        place("example", example, explanation.examples)
    row = chain.example if example is None and chain is not None else example
    with precision(digits):
        if neurons.fits(explanation):
            return neurons.draw(explanation, row, chain, numbers)
        if numbers is not None:
            raise ValueError(
                f"`numbers` says whether numbers stand on the edges between single units, and '{explanation.model}' is drawn "
                f"{'unrolled in time' if timeline.fits(explanation) else 'layer by layer'}, without such edges. Leave it out. "
                f"Received: numbers={numbers!r}"
            )
        if timeline.fits(explanation):
            return timeline.draw(explanation, row, chain)
        if example is not None and explanation.examples > 1:
            raise ValueError(
                f"'{explanation.model}' is drawn layer by layer, with norms over all {explanation.examples} examples: one of "
                f"them cannot be drawn. Leave `example` out; `to_text(example={example})` shows it. Received: example={example!r}"
            )
        return blocks.draw(explanation, chain)


def shows_examples(explanation):
    """Whether the drawing has numbers of single examples, and not norms over all."""
    from keras_backprop.explanations.drawing import neurons, timeline

    return neurons.fits(explanation) or timeline.fits(explanation)


def svg(explanation):
    """The drawing as text, SVG; None where Matplotlib is not installed."""
    try:
        return drawing(explanation).to_svg()
    except ImportError:
        return None


def film_strip(frames, path, digits=None):
    """Write several drawings, one below the other, to a file.

    Args:
        frames: list of (step, `Explanation`).
        path: the file.
        digits: int or None.
    """
    path = _checked(path)
    require_matplotlib("Drawing a film strip")
    from keras_backprop.explanations.drawing.canvas import stacked

    titles = [f"step {step}:  $E = {latex_number(explanation.loss)}$" for step, explanation in frames]
    return stacked([drawing(explanation, digits=digits) for _, explanation in frames], titles).save(path)


def _checked(path):
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"The file's suffix must be one of {', '.join(SUFFIXES)}. Received: path={str(path)!r}")
    return path


def require_matplotlib(purpose):
    """Raise an error that says what to install, unless Matplotlib is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{purpose} needs Matplotlib: pip install "keras-backprop[plot]"') from error
