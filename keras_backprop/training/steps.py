"""The training and test steps that Keras traces: the same traces, for its loop and for ours.

Keras traces a step in the first batch and keeps it until the model is compiled anew: what callbacks and users change before
then takes effect, what they change afterwards does not. So our loop traces no step of its own. It asks Keras's function for the
trace that Keras's loop would run, and puts the operations of that trace into itself. A loop for data of another size, or with
validation, holds a copy; nothing is traced again.
"""

import keras

from keras_backprop import _keras, _tensorflow


def train_step(model, examples):
    """The trace of a training step for batches of such examples: a `tf.ConcreteFunction`, made when there is none yet.

    Raises:
        LookupError: the model's train function is not Keras's.
        Exception: whatever tracing the step raises.
    """
    model.make_train_function()
    return _trace(model, model.train_function, examples)


def test_step(model, examples):
    """The same for a test step."""
    model.make_test_function()
    return _trace(model, model.test_function, examples)


def _trace(model, function, examples):
    step = _keras.step_of(function)
    if not step.experimental_get_tracing_count():
        _build(model, examples.batch)
    return step.get_concrete_function(examples.batch)


def _build(model, batch):
    """Make the variables that a step needs: TensorFlow traces twice where it finds some to make.

    Keras runs the model on symbolic tensors for it, to find out what it puts out. Of a graph of layers that is known.
    """
    batch = batch[:3]  # what may follow is not the model's
    graph = _keras.graph_of(model)
    _, y, _ = _keras.unpack_x_y_sample_weight(batch)
    if graph is not None and y is not None and model.built and type(model).compute_loss is _keras.Trainer.compute_loss:
        y = keras.tree.map_structure(_keras.symbolic, y)
        for part in (model._compile_metrics, model._compile_loss):
            if part is not None and not part.built:
                part.build(y, graph._outputs_struct)
    model._symbolic_build(data_batch=batch)


class Operations:
    """The operations of a traced step, to be put into other functions.

    Args:
        step: a `tf.ConcreteFunction` of one argument, a batch.

    Attributes:
        operations: list of `tf.Operation`, those that change something, and what these need. The logs that a step returns
            are not among them: they are asked for at the end of an epoch.
    """

    def __init__(self, step):
        self._step = step
        self.operations = _tensorflow.with_effects(step.graph)

    def run(self, batch, lowered):
        """Put them into the graph at hand, for a batch of tensors. `lowered`: see `_tensorflow.copy_operations`."""
        values = [x for x in keras.tree.flatten(batch) if x is not None] + list(self._step.captured_inputs)
        inputs = list(zip(self._step.inputs, values, strict=True))
        _tensorflow.copy_operations(self.operations, inputs, lowered)
