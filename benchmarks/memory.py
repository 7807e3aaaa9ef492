"""The peak memory of training steps, each side in a process of its own: `python -m benchmarks.memory NAME SIDE` prints bytes."""

import pathlib
import subprocess
import sys
import time


def peak(name, side, module="benchmarks.memory"):
    """How far steps raise the resident memory above that of the built model, in bytes: as a module prints it."""
    done = subprocess.run([sys.executable, "-m", module, name, side], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def rise(step, calls=5):
    """How far some calls of a compiled step raise the resident memory of this process, in bytes."""
    step.get_concrete_function()
    before = _status("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # start the high-water mark anew
    for _ in range(calls):
        step()
        time.sleep(0.01)
    return _status("VmHWM") - before


def main():
    name, side = sys.argv[1:]
    import tensorflow as tf

    from benchmarks.steps import step_of
    from benchmarks.workloads import WORKLOADS

    step = step_of(next(workload for workload in WORKLOADS if workload.name == name), side)
    print(rise(tf.function(step, autograph=False)))


def _status(name):
    """A line of /proc/self/status, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(name)


if __name__ == "__main__":
    main()
