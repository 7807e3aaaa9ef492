"""What several workers say to each other: `python benchmarks/workers.py [--workers 1 2 4] [--width 512]`.

The workers run on this machine and talk over loopback. Every worker adds up what the kernel says its own TCP sockets have
sent (`bytes_acked` of Linux's TCP_INFO) over a number of training steps, so that other traffic does not count. Quoted beside it
is what a ring all-reduce of the gradients sends: 2·(N − 1)/N times their size. The times are of workers that share this
machine's cores; they show what a step costs in rounds of messages, not how training scales.
"""

import argparse
import json
import os
import pathlib
import socket
import struct
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

FEATURES, CLASSES, BATCH = 784, 10, 128


def bytes_sent():
    """What the TCP sockets that this process has open have sent, by socket."""
    sent = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{entry}")
            if name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry))) as one:
                    sent[name] = struct.unpack_from("Q", one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 120)[
                        0
                    ]
        except (OSError, struct.error):
            continue  # closed meanwhile, or no TCP socket
    return sent


def work(width, steps, folder):
    """One worker: train, and report bytes and seconds a step."""
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_backprop import BackpropSequential

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = BackpropSequential(
            [keras.Input((FEATURES,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(CLASSES, "softmax")]
        )
        model.compile("sgd", "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH * steps, FEATURES)).astype("float32")
    y = random.integers(0, CLASSES, BATCH * steps)
    marks = []
    mark = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: marks.append((time.perf_counter(), bytes_sent()))
    )
    model.fit(x, y, batch_size=BATCH, epochs=3, shuffle=False, verbose=0, callbacks=[mark])
    (start, before), (end, after) = marks[1:3]  # without the first epoch: tracing, connecting
    report = {
        "gradients": 4 * model.count_params(),
        "sent": sum(after[name] - before.get(name, 0) for name in after) / steps,
        "seconds": (end - start) / steps,
    }
    pathlib.Path(folder, f"{strategy.cluster_resolver.task_id}.json").write_text(json.dumps(report))
    time.sleep(1)  # the others may still be reading from us
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--width", type=int, default=512, help="hidden units")
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()

    from keras_backprop.training.launch import launch

    print(
        f"{'workers':>7} {'gradients':>12} {'sent a step and worker':>23} {'ring':>12} {'measured/ring':>13} {'a step':>9}"
    )
    for count in args.workers:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, str(args.width), str(args.steps), folder]
            launch(command, count, restarts=0, timeout=600, environment={"WORKER": "1"})
            reports = [json.loads(path.read_text()) for path in pathlib.Path(folder).iterdir()]
        gradients, sent = reports[0]["gradients"], sum(r["sent"] for r in reports) / count
        ring, seconds = 2 * (count - 1) / count * gradients, max(r["seconds"] for r in reports)
        ratio = f"{sent / ring:>13.3f}" if ring else f"{'–':>13}"
        print(
            f"{count:>7} {gradients:>10,} B {sent:>21,.0f} B {ring:>10,.0f} B {ratio} {seconds * 1e3:>6.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    if "WORKER" in os.environ:
        work(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    else:
        main()
