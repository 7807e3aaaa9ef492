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
        parts: function () -> int, how many parts of batches.
        source: str, where the random numbers of the next steps come from.

    Attributes:
        tried: bool, whether examples were tried before the first step.
        random_numbers: set of str, all sources.
    """

    def __init__(self, steps: Callable[[], int], parts: Callable[[], int], source: str) -> None:
        self.tried = False
        self.random_numbers = {source}
        self._steps, self._parts = steps, parts
        self._given, self._drawn = False, 0
        self._since: Any = None
        self._known = 0  # so many parts there were when `fit` last ran steps
        self._fits = False

    @property
    def drawn(self) -> int:
        """For how many steps `fit` drew the batches."""
        return self._drawn + (0 if self._since is None else self._steps() - self._since)

    @property
    def given(self) -> bool:
        """Whether some batches were given by the caller: who has counted, but for `fit`?"""
        return self._given or (self._since is None and self._parts() != self._known)

    @contextlib.contextmanager
    def counted_otherwise(self) -> Iterator[None]:
        """In the block the same steps become other numbers of parts, and one under way a whole one."""
        self._given = self.given
        yield
        self._known = self._parts()
        if not self._given:  # `fit` has drawn all: that which was under way, too
            self._drawn = self._steps()

    @contextlib.contextmanager
    def fitting(self) -> Iterator[None]:
        """In the block, which is that of a `fit`, `being_drawn` speaks of its steps."""
        with self._in_fit(True):
            yield

    @contextlib.contextmanager
    def interrupted(self) -> Iterator[None]:
        """In the block, which a callback of `fit` may have entered, it does not: the caller has chosen the batch."""
        with self._in_fit(False):
            yield

    @contextlib.contextmanager
    def _in_fit(self, fits):
        before, self._fits = self._fits, fits
        try:
            yield
        finally:
            self._fits = before

    @contextlib.contextmanager
    def being_drawn(self) -> Iterator[None]:
        """`fit` draws the batches of the steps that are taken, or taken back, in the block."""
        if not self._fits or self._since is not None:
            yield
            return
        self._given, self._since = self.given, self._steps()
        try:
            yield
        finally:
            self._drawn, self._since, self._known = self.drawn, None, self._parts()

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
        self._drawn, self.tried = state["drawn"], state["tried"]
        self._given = state["given"] or self._drawn < self._steps()
        self.random_numbers = {*state["random_numbers"], source}
        self._known = self._parts()
