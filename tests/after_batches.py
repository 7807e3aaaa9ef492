"""A training that ends in the middle."""

import keras


class AfterBatches(keras.callbacks.Callback):
    """Calls a function, one that raises or that kills the process, after a number of batches."""

    def __init__(self, batches, end):
        super().__init__()
        self.left, self.end = batches, end

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            self.end()


def raises(error):
    """A function that raises an error."""

    def end():
        raise error

    return end
