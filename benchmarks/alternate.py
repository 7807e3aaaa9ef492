"""Time several functions in one process, alternating, so that a drift of the machine's speed hits all alike."""

import statistics
import time


def medians(functions, repeats=30, seconds=0.02):
    """The median time of one call of each function, in seconds.

    Args:
        functions: list of functions without arguments. Each is called a few times first.
        repeats: int, blocks of calls of each function.
        seconds: float, how long a block should take; the number of calls in a block follows.
    """
    blocks = []
    for function in functions:
        function()
        start = time.perf_counter()
        for _ in range(3):
            function()
        blocks.append(max(1, round(seconds * 3 / (time.perf_counter() - start))))
    times: list = [[] for _ in functions]
    for _ in range(repeats):
        for function, block, results in zip(functions, blocks, times, strict=True):
            start = time.perf_counter()
            for _ in range(block):
                function()
            results.append((time.perf_counter() - start) / block)
    return [statistics.median(results) for results in times]
