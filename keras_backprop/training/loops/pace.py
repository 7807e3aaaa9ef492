"""How much to do in one compiled call."""

SECONDS = 0.2
"""How long a call should take. Between calls Python is back: Ctrl-C works, the progress bar moves."""

GROWTH = 16


class Pace:
    """Finds the number of steps that take about `SECONDS`.

    Attributes:
        steps: int, for the next call. The first call is one step; a call is at most `GROWTH` times the one before.
    """

    def __init__(self):
        self.steps = 1

    def took(self, steps, seconds):
        """Tell it that a call of so many steps took so long."""
        self.steps = max(1, min(GROWTH * self.steps, int(SECONDS * steps / max(seconds, 1e-9))))
