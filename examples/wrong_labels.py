"""Wrong labels in digits, found by what training tells of every example; and the easy half left out.

A tenth of the labels is replaced by wrong ones. `ExampleRecorder` records every example in every epoch of one ordinary `fit`;
ordered by any of its scores, the wrong ones come first.

    python examples/wrong_labels.py
"""

import argparse

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

from keras_backprop import BackpropSequential
from keras_backprop.callbacks import ExampleRecorder


def network():
    keras.utils.set_random_seed(0)
    model = BackpropSequential([keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    (x, y), test = (x[:1400], y[:1400]), (x[1400:], y[1400:])
    wrong = np.zeros(len(x), bool)
    wrong[rng.choice(len(x), 140, replace=False)] = True
    labels = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y)

    recorder = ExampleRecorder()
    model = network()
    model.fit(x, labels, epochs=options.epochs, batch_size=32, verbose=0, callbacks=[recorder])
    print(
        f"{model.fit_path}\n\nOf the k examples that stand out most, how many have one of the 140 wrong labels (precision at k):"
    )
    scores = {
        "loss, mean": recorder.history["loss"].mean(1),
        "EL2N": recorder.el2n(),
        "GraNd": recorder.grand(),
        "area under the margin": -recorder.area_under_margin(),
        "chance": rng.uniform(size=len(x)),
    }
    print(f"  {'':22}" + "".join(f"{f'k = {k}':>10}" for k in (35, 70, 140)))
    for name, score in scores.items():
        ranked = wrong[np.argsort(-score)]
        print(f"  {name:22}" + "".join(f"{ranked[:k].mean():>10.2f}" for k in (35, 70, 140)))

    hard = np.argsort(-recorder.area_under_margin())[: len(x) - 140]  # without those that look wrong
    kept = hard[np.argsort(-recorder.el2n()[hard])[:700]]
    print("\nTrained on … examples, accuracy on the others:")
    for name, chosen in {
        "all 1400, wrong labels and all": np.arange(1400),
        "the harder 700 of those that look right": kept,
        "any 700": rng.choice(1400, 700, replace=False),
    }.items():
        model = network()
        model.fit(x[chosen], labels[chosen], epochs=2 * options.epochs, batch_size=32, verbose=0)
        print(f"  {name:42}{model.evaluate(*test, verbose=0)[1]:.3f}")


if __name__ == "__main__":
    main()
