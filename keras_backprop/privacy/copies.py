"""Copies of a plan: of two models that got the same noise, the difference would tell what the noise hides."""

from typing import Any


class Copied:
    """A mixin of `Plan`. A copy has counted as many steps, and has a secret seed of its own."""

    get_config: Any
    from_config: Any
    _generator: Any

    def __copy__(self) -> Any:
        return self.from_config({**self.get_config(), "generator": self._generator})

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()

    def __reduce__(self) -> Any:
        if self._generator is not None:
            raise TypeError(
                "A plan with a `generator` cannot be pickled: two processes would draw the same numbers from it. Make a plan "
                f"in each, with a generator of its own. Received: generator={self._generator!r}"
            )
        return self.from_config, (self.get_config(),)
