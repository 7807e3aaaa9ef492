"""Start the workers of a cluster on this machine, and start them again when one dies.

    python -m keras_backprop.training.launch --workers 2 train.py …

On a real cluster its scheduler does this: it sets `TF_CONFIG` on every machine and starts again what ends with an error.

TensorFlow's server in each worker listens on all addresses of the machine, and does what anyone who connects asks it to: see
docs/several_machines.md.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time


def launch(command, workers=2, restarts=3, timeout=None, environment=None):
    """Run `command` in `workers` processes that form a cluster, until all have ended well.

    When one ends with an error or is killed, the others cannot go on: an all-reduce needs everybody. They are ended, and all
    are started again, with the same ports. What they do then is theirs to decide: a `keras.callbacks.BackupAndRestore`
    resumes.

    Args:
        command: list of str.
        workers: int ≥ 1.
        restarts: int ≥ 0, how many times to start again at the most.
        timeout: float, seconds after which all are ended; None waits for ever.
        environment: dict of further environment variables.

    Returns:
        int, how many times the workers were started again.

    Raises:
        ValueError: no worker at all, or fewer than no restarts.
        RuntimeError: a worker failed after the last restart.
        TimeoutError: the time is over.
    """
    if workers < 1 or restarts < 0:
        raise ValueError(f"There must be a worker, and no fewer than 0 restarts. Received: {workers=}, {restarts=}")
    deadline = None if timeout is None else time.monotonic() + timeout
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    for attempt in range(restarts + 1):
        with _cluster(command, addresses, environment or {}) as processes:
            failed = _wait(processes, deadline)
        if failed is None:
            return attempt
    worker, status = failed
    raise RuntimeError(f"Worker {worker} ended with status {status} after {restarts} restarts.")


@contextlib.contextmanager
def _cluster(command, addresses, environment):
    """The processes, one for each address; none of them outlives the block."""
    processes = []
    try:
        for index in range(len(addresses)):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            variables = {**os.environ, **environment, "TF_CONFIG": json.dumps(config)}
            processes.append(subprocess.Popen(command, env=variables))
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _wait(processes, deadline):
    """None once all have ended well; (worker, status) as soon as one has not."""
    while True:
        statuses = [process.poll() for process in processes]
        for worker, status in enumerate(statuses):
            if status:
                return worker, status
        if None not in statuses:
            return None
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError("The workers did not end in time; they were ended.")
        time.sleep(0.05)


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=_at_least(1), default=2)
    parser.add_argument("--restarts", type=_at_least(0), default=3)
    parser.add_argument("script", nargs=argparse.REMAINDER, help="a Python file and its arguments")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    launch([sys.executable, *args.script], args.workers, args.restarts)


def _at_least(smallest):
    """A type of argument: a whole number that is not smaller."""

    def number(text):
        if int(text) < smallest:
            raise argparse.ArgumentTypeError(f"must be at least {smallest}, is {text}")
        return int(text)

    return number


def _end(signum, frame):
    """End as a process does that is ended by a signal, but not before the workers."""
    signal.signal(signum, signal.SIG_IGN)
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    main()
