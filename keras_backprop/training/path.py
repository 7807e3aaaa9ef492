"""Which way `fit` takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FitPath:
    """Which way `fit` took, and why: `model.fit_path` after `fit`.

    Attributes:
        compiled: bool, whole epochs, or some steps of one, ran in compiled calls; else Keras's own loop ran, batch by batch.
        reason: str.
        epochs_per_execution: int, the largest number of epochs that may share a call; 0 for Keras's loop.
        steps: bool, a call is some steps of an epoch, between which callbacks hear of batches or Python takes part.
        jit_compile: bool, the calls were compiled with XLA.
    """

    compiled: bool
    reason: str
    epochs_per_execution: int = 0
    jit_compile: bool = False
    steps: bool = False

    def __str__(self):
        if not self.compiled:
            return f"batch by batch, in Keras's own loop: {self.reason}"
        xla = ", with XLA" if self.jit_compile else ""
        if self.steps:
            return f"some steps compiled in one call{xla}: {self.reason}"
        return f"whole epochs compiled, up to {self.epochs_per_execution} in one call{xla}: {self.reason}"


class NotCompiledError(Exception):
    """The compiled loop does not serve this `fit`. The message says why."""
