"""Which links and weights are watched, by patterns of their paths."""

from typing import Any

import keras

from keras_backprop.scopes import matches


class Selection:
    """Patterns of paths.

    A pattern selects the paths that match it (`*` is anything, `?` one character; the model's name in front may be left out)
    and all that lies under them: `"encoder"` also means `encoder/dense`, `encoder/dense/tanh` and `encoder/dense/kernel`, and the
    second use of a shared layer, `encoder/dense·2`.

    Args:
        layers: a pattern, a layer, or a list of them.

    Raises:
        TypeError: something else.
        ValueError: an empty list.
    """

    def __init__(self, layers: Any) -> None:
        given = [layers] if isinstance(layers, (str, keras.layers.Layer)) else layers
        if not isinstance(given, (list, tuple)) or not all(isinstance(x, (str, keras.layers.Layer)) for x in given):
            raise TypeError(
                f'`layers` must be patterns of paths, such as "encoder/*", or layers. Received: layers={layers!r}'
            )
        if not given:
            raise ValueError('`layers` must name at least one pattern; "*" is everything. Received: an empty list')
        self.given = list(given)

    def __call__(self, path: str) -> bool:
        """Whether a path is selected."""
        return any(selects(_pattern(one), path) for one in self.given)

    def check(self, paths: Any, others: Any) -> None:
        """Raise a `ValueError` that names the patterns that match nothing.

        Args:
            paths: list of str, of the links and weights that were seen.
            others: list of str, of layers and weights that the error does not go back through now, frozen ones perhaps.
        """
        for one in self.given:
            if not any(selects(_pattern(one), path) for path in (*paths, *others)):
                shown = ", ".join(map(repr, list(paths)[:30])) + (", …" if len(paths) > 30 else "")
                raise ValueError(
                    f"`layers`: {_said(one)} matches no link and no weight of the model. There are: {shown}"
                )


def selects(pattern: str, path: str) -> bool:
    """Whether a pattern selects a path, or something that it lies under."""
    parts = path.split("/")
    ancestors = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return any(matches(pattern, one) or matches(pattern, one.partition("·")[0]) for one in ancestors)


def _pattern(one):
    return one if isinstance(one, str) else one.path


def _said(one):
    return f"the pattern {one!r}" if isinstance(one, str) else f"the layer '{one.path}'"
