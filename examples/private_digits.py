"""Digits with differential privacy: a plan, an ordinary `fit`, and a paragraph that says what is guaranteed.

python examples/private_digits.py
"""

import argparse

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

from keras_backprop import BackpropSequential, privacy


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--epsilon", type=float, default=6.0)
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    plan = privacy.Plan(
        examples=1400,
        expected_batch_size=200,
        epochs=options.epochs,
        clipping_norm=0.5,
        epsilon=options.epsilon,
        delta=1e-4,
    )
    model = BackpropSequential([keras.Input((64,)), layers.Dense(10, "softmax")])
    model.compile(
        keras.optimizers.SGD(4.0, momentum=0.5),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        gradients=plan,
    )
    model.fit(x[:1400], y[:1400], epochs=options.epochs, verbose=0)
    accuracy = model.evaluate(x[1400:], y[1400:], verbose=0)[1]
    print(f"{plan}\n{model.fit_path}\n")
    print(f"Accuracy on the other 397 digits: {accuracy:.3f}\n\n{plan.statement()}")


if __name__ == "__main__":
    main()
