"""`python -m keras_backprop`: the worked example, from the first forward pass to the stop at the threshold.

One input, one hidden and one output unit, both sigmoid; or the network of any such exercise: `--hidden 2 --outputs 2`.
Everything is float64, so that the figures can be compared digit by digit.
"""

import sys

import keras
import numpy as np

from keras_backprop.callbacks import StopAtError
from keras_backprop.check import check_gradients
from keras_backprop.explanations import explain, steps
from keras_backprop.explanations.command_line import LOSSES, data_of, options_of, weights_of
from keras_backprop.explanations.comparing.spelling import Spelling
from keras_backprop.explanations.drawing.plot import require_matplotlib, shows_examples
from keras_backprop.explanations.writing.notation import plain
from keras_backprop.layers import BackpropDense
from keras_backprop.losses import HalfMeanSquaredError
from keras_backprop.model import BackpropSequential


def main(arguments=None):
    """Run the worked example, or another.

    Args:
        arguments: list of str, the command line; by default the process's own.

    Returns:
        int, the exit status: 0, or 1 if the explicit gradients do not agree with the tape's.

    Raises:
        SystemExit: with status 2 and one line on standard error, for arguments that make no sense.
    """
    options, parser = options_of(arguments)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")  # `fit` converts its data to this
    keras.config.set_dtype_policy("float64")
    try:
        return _run(options, parser)
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def _run(options, parser):
    model, x, target = _set_up(options, parser)
    explanation = explain(model, x, target)
    print(explanation.to_text(digits=options.digits, example=options.example))
    if abs(explanation.loss - 0.108229563) < 1e-9:
        print("  (Where E is printed as 0.1083, it was calculated by hand with a₂ rounded to 0.7153.)")
    print("\nAfter the first iteration")
    for line in _updated(explanation):
        print(f"  {line}")
    _asked(options, parser, explanation, model, x, target)
    report = check_gradients(model, x, target)
    print(f"\nThe same gradients from tf.GradientTape and from central differences\n{report}\n")
    stop = StopAtError(options.epsilon)
    batch = len(x)
    history = model.fit(x, target, epochs=options.epochs, batch_size=batch, shuffle=False, callbacks=[stop], verbose=0)
    errors = history.history["loss"]
    print(f"Training: model.fit(epochs={options.epochs}, callbacks=[StopAtError({options.epsilon:g})])")
    if stop.stopped_epoch is None:
        print(
            f"  did not reach ε = {options.epsilon:g} in {_epochs(len(errors))}; the error of the last is {errors[-1]:.9f}"
        )
    else:
        print(
            f"  stopped after {_epochs(stop.stopped_epoch)} with the error {stop.error:.9f} ≤ ε = {options.epsilon:g}"
        )
    print("\nPictures")
    for line in _draw(explanation, errors, options):
        print(f"  {line}")
    return 0 if report.passed else 1


def _updated(explanation):
    """`w₂ = 0.4271718…` for every single new weight, counted through the network where there are several."""
    spelling = Spelling(explanation, explanation.graph)
    for weight in explanation.weights:
        for index in np.ndindex(weight.value.shape):
            also = spelling.running(weight.path, index)
            name = plain(spelling.name(weight.path, index))
            counted = (
                f" (w{str(also).translate(_SUBSCRIPTS)})" if also is not None and weight.symbol.letter == "W" else ""
            )
            yield f"{name}{counted} = {float(weight.updated[index]):.10f}"


_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def _asked(options, parser, explanation, model, x, target):
    """What `--chain`, `--compare` and `--steps` ask for."""
    for name in options.chain or ():
        try:
            print(f"\n{explanation.chain(name, example=options.example).to_text(digits=options.digits)}")
        except (KeyError, IndexError) as error:
            parser.error(f"argument --chain: {error.args[0]}")
    if options.compare:
        print("\nYour numbers")
        for given in options.compare:
            name, _, number = given.rpartition("=")
            if not name.strip():
                parser.error(f"argument --compare: write NAME=NUMBER, as in dw5=0.0822. Received: {given!r}")
            try:
                print(f"  {explanation.compare(name.strip(), number.strip(), example=options.example)}")
            except (KeyError, IndexError, ValueError) as error:
                hint = " On the command line that is --example 1." if "example=0" in error.args[0] else ""
                parser.error(f"argument --compare: {error.args[0]}{hint}")
    if options.steps:
        print(f"\n{steps(model, x, target, options.steps).to_text(digits=options.digits)}")


def _epochs(count):
    return "1 epoch" if count == 1 else f"{count} epochs"


def _set_up(options, parser):
    """The model and the data that the command line asks for."""
    x, target = data_of(options, parser)
    units = [x.shape[1], *options.hidden, target.shape[1]]
    weights = weights_of(options, units, parser)
    loss = LOSSES[options.loss](dtype="float64")
    last = options.last_activation or {"categorical_crossentropy": "softmax", "binary_crossentropy": "sigmoid"}.get(
        options.loss, options.activation
    )
    name = "worked_example" if units == [1, 1, 1] else "network_" + "_".join(map(str, units))
    rate = options.learning_rate if options.learning_rate is not None else 0.4 if units == [1, 1, 1] else 0.5
    model = build(weights, rate, units, options.activation, last, loss, options.hold_biases, name)
    if options.example is not None and not 1 <= options.example <= len(x):
        parser.error(f"argument --example: must be from 1 to {len(x)}. Received: {options.example}")
    options.example = None if options.example is None else options.example - 1
    return model, x, target


def build(
    weights,
    learning_rate,
    units=(1, 1, 1),
    activation="sigmoid",
    last="sigmoid",
    loss=None,
    hold_biases=False,
    name="worked_example",
):
    """The compiled network of the worked example, or another.

    Args:
        weights: w₁, b₁, w₂, b₂; or a list of arrays as `set_weights` takes it.
        learning_rate: float, η.
        units: list of int, from the inputs to the outputs.
        activation, last: names, of the hidden layers and of the last.
        loss: a loss; by default half the mean squared error.
        hold_biases: bool, whether the biases are not trained.
        name: str, the model's.
    """
    names = ["hidden"] if len(units) == 3 else [f"hidden_{i}" for i in range(1, len(units) - 1)]
    functions = [activation] * (len(units) - 2) + [last]
    layers = [
        BackpropDense(n, function, name=layer, dtype="float64")
        for n, function, layer in zip(units[1:], functions, [*names, "output"], strict=True)
    ]
    model = BackpropSequential([keras.Input((units[0],), dtype="float64"), *layers], name=name)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([np.reshape(value, shape) for value, shape in zip(weights, shapes, strict=True)])
    for layer in layers:
        layer.bias.trainable = not hold_biases
    model.compile(keras.optimizers.SGD(learning_rate), loss=loss or HalfMeanSquaredError())
    return model


def _draw(explanation, errors, options):
    """Write the pictures; returns what to say about them."""
    try:
        require_matplotlib("Drawing")
    except ImportError as error:
        return [str(error)]
    from keras_backprop.explanations.drawing.curve import error_curve

    example = options.example if shows_examples(explanation) else None
    network = explanation.plot(options.output_dir / "network.png", example=example)
    return [str(network), str(error_curve(errors, options.epsilon, options.output_dir / "error.png"))]


if __name__ == "__main__":
    sys.exit(main())
