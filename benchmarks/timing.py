"""Time functions in one process, alternating, so that a drift of the machine's speed hits all alike."""

import statistics
import time


class Times(list):
    """The seconds of one call of a function, measured several times."""

    @property
    def median(self):
        return statistics.median(self)

    def over(self, other):
        """The ratio to another function's times: the median of the ratios of neighbours in time."""
        return statistics.median(a / b for a, b in zip(self, other, strict=True))

    def median_text(self):
        """The median with its unit."""
        unit, factor = self._unit()
        return f"{self.median * factor:.3g} {unit}"

    def __str__(self):
        _, factor = self._unit()
        return f"{self.median_text()} ({min(self) * factor:.3g}–{max(self) * factor:.3g})"

    def _unit(self):
        return ("s", 1) if self.median >= 1 else ("ms", 1e3) if self.median >= 1e-3 else ("µs", 1e6)


def alternate(functions, repeats=30, seconds=0.05, clock=time.perf_counter):
    """Call every function `repeats` times in blocks, in turn.

    Args:
        functions: dict name -> function without arguments. Each is called a few times first.
        repeats: int, the number of blocks of each.
        seconds: float, how long a block should take; the number of calls in a block follows from it.
        clock: what tells the time. `time.process_time` adds up all threads and leaves out other processes.

    Returns:
        dict name -> `Times`, of one call.
    """
    blocks = {}
    for name, function in functions.items():
        function()
        once = min(timed(function) for _ in range(2))
        blocks[name] = max(1, round(seconds / once))
    times = {name: Times() for name in functions}
    for round_ in range(repeats):
        names = list(functions)
        for name in names if round_ % 2 else reversed(names):
            function, block = functions[name], blocks[name]
            start = clock()
            for _ in range(block):
                function()
            times[name].append((clock() - start) / block)
    return times


def once_each(functions, repeats):
    """As `alternate`, for functions that are long, and are not to be warmed up: their first call is what is measured."""
    times = {name: Times() for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(timed(function))
    return times


def timed(function, clock=time.perf_counter):
    """The seconds that one call takes."""
    start = clock()
    function()
    return clock() - start
