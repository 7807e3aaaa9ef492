"""What a plan knows of the steps that it has counted: who drew the batches, where random numbers came from, what was tried."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

UNKNOWN = "unknown"
"""The source of the random numbers of steps that somebody has counted without a word about them."""


class Past:
    """What is true of all steps of a plan.

    Args:
        steps: function () -> int, how many steps have been counted.
        source: str, where the random numbers of the next steps come from.

    Attributes:
        given: bool, whether some batches were given by the caller.
        tried: bool, whether examples were tried before the first step.
        random_numbers: set of str, all sources.
    """

    def __init__(self, steps: Callable[[], int], source: str) -> None:
        self.given = self.tried = False
        self.random_numbers = {source}
        self._steps, self._drawn = steps, 0
        self._since: Any = None

    @property
    def drawn(self) -> int:
        """For how many steps `fit` drew the batches."""
        return self._drawn + (0 if self._since is None else self._steps() - self._since)

    @contextlib.contextmanager
    def being_drawn(self) -> Iterator[None]:
        """`fit` draws the batches of the steps that are taken meanwhile."""
        if self._since is not None:
            yield
            return
        self._since = self._steps()
        try:
            yield
        finally:
            self._drawn, self._since = self.drawn, None

    def goes_on_with(self, source: str) -> None:
        """Is told where the random numbers of the next steps come from; what was said before of none that was taken is void."""
        self.random_numbers = {*(self.random_numbers if self._steps() else ()), source}

    def state(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "drawn": self.drawn,
            "given": self.given,
            "tried": self.tried,
            "random_numbers": sorted(self.random_numbers),
        }

    def restore(self, state: Any, source: str) -> None:
        """Go on from steps that have been counted just now.

        Args:
            state: dict that `state` has returned; None where nothing is known of them.
            source: str, where the random numbers of the next steps come from.
        """
        if state is None:
            state = {"drawn": 0, "given": True, "tried": False, "random_numbers": [UNKNOWN]}
        self._drawn, self.given, self.tried = state["drawn"], state["given"], state["tried"]
        self.random_numbers = {*state["random_numbers"], source}
        if self._since is not None:
            self._since = self._steps()
