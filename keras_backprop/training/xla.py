"""Whether XLA is worth its compilation on a CPU. The measurements are in docs/speed.md."""


def worth_compiling(model):
    return False
