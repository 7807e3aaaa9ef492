"""Three open places of the backward pass, all in `fit`: what is seen, what the optimizer receives, what a link does."""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import keras_backprop

images, labels = load_digits(return_X_y=True)
x = (images / 16).astype("float32")


def classifier(**options):
    keras.utils.set_random_seed(1)
    model = keras_backprop.BackpropSequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(32, "relu", name="hidden"),
            keras.layers.Dense(10, "softmax", name="out"),
        ],
        name="digits",
    )
    model.compile(keras.optimizers.SGD(0.2), "sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model


def fit(model, **options):
    history = model.fit(x, labels, epochs=5, shuffle=False, verbose=0, **options)
    assert model.fit_path.compiled  # whole epochs, in one compiled function
    return history.history


# What is seen: an observer is told of every link of every step.
class Norms(keras_backprop.BackwardObserver):
    """‖∂E/∂z‖ of every layer, the mean over the steps of an epoch."""

    def observe(self, link):
        if isinstance(link.call.op, keras.layers.Layer):
            self.note(link.path, tf.norm(link.upstream[0]), over_steps="mean")


class NormHistory(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.backward_observer, self.epochs = Norms(), []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self.backward_observer.read())
        self.backward_observer.reset()


norms = NormHistory()
plain = fit(classifier(), callbacks=[norms])
for epoch, seen in enumerate(norms.epochs, 1):
    print(f"epoch {epoch}: " + ", ".join(f"‖δ‖ of {path} {norm:.4f}" for path, norm in seen.items()))

# What the optimizer receives: no example counts more than a gradient of norm 1.
clipped = fit(classifier(gradients=keras_backprop.gradients.ClippedByExample(1.0)))
print(f"accuracy after 5 epochs: {plain['accuracy'][-1]:.3f}, clipped by example {clipped['accuracy'][-1]:.3f}")

# Or: half of the hidden layer's connections do not exist, and the last layer learns at half the rate.
mask = np.random.default_rng(0).integers(0, 2, (64, 32))
model = classifier(gradients=keras_backprop.gradients.ByPath({"hidden/kernel": mask, "out/*": 0.5}))
hidden = model.get_layer("hidden")
hidden.kernel.assign(hidden.kernel * mask)
fit(model)
print(f"{np.mean(hidden.kernel.numpy() == 0):.0%} of the connections are still missing")


# What a link does: feedback alignment, in which errors go back through a fixed random matrix.
def alignment(call, dy):
    """dx = dy·Bᵀ with a fixed random B in the place of W. (Lillicrap et al., 2016.)"""
    B = 0.3 * tf.random.stateless_normal(call.op.kernel.shape, seed=(1, 2))
    weights = {"kernel": ("i,o->io", call.input, dy), "bias": ("o->o", dy)}
    return keras_backprop.Gradients(
        dy @ tf.transpose(B), **{name: keras_backprop.Contraction(*product) for name, product in weights.items()}
    )


aligned = fit(classifier(rules={keras.layers.Dense: alignment}))
print(f"accuracy with feedback alignment: {aligned['accuracy'][-1]:.3f}")
