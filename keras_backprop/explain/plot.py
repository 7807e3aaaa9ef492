"""Draw an explanation: neuron by neuron where the network is small enough, else layer by layer."""

from pathlib import Path

SUFFIXES = (".png", ".svg", ".pdf")


def plot(explanation, path):
    """Write the drawing of an explanation to a file. See `Explanation.plot`."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"The file's suffix must be one of {', '.join(SUFFIXES)}. Received: path={str(path)!r}")
    require_matplotlib("Drawing a network")
    from keras_backprop.explain import blocks, neurons

    draw = neurons.draw if neurons.fits(explanation) else blocks.draw
    return draw(explanation).save(path)


def require_matplotlib(purpose):
    """Raise an error that says what to install, unless Matplotlib is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{purpose} needs Matplotlib: pip install "keras-backprop[plot]"') from error
