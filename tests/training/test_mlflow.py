"""MLflow's autolog: the callbacks that it puts into `fit` leave it in the compiled loop, and it notes what it notes of stock Keras."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import BackpropSequential
from keras_backprop.training.callbacks import Listeners

X = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
Y = X[:, :1]


def listeners(callback):
    return Listeners(keras.callbacks.CallbackList([callback]), "train")


def like_mlflows(name, **attributes):
    """A callback that hears of batches, by the name of one of MLflow's."""
    kind = type(name, (keras.callbacks.Callback,), {"on_train_batch_end": lambda self, batch, logs=None: None})
    kind.__module__ = "mlflow.tensorflow.callback"
    callback = kind()
    vars(callback).update(attributes)
    return callback


def test_its_callbacks_act_when_they_say():
    assert not listeners(like_mlflows("MlflowCallback", log_every_n_steps=None)).acting
    assert listeners(like_mlflows("MlflowCallback", log_every_n_steps=3)).acting
    assert not listeners(like_mlflows("MlflowModelCheckpointCallback", save_freq="epoch")).acting
    saver = like_mlflows("MlflowModelCheckpointCallback", save_freq=5, global_step=7, global_step_last_saving=4)
    assert listeners(saver).until_due(7) == 2


def test_a_subclass_of_tensorboard_that_hears_of_batches_alike(tmp_path):
    class Safe(keras.callbacks.TensorBoard):  # as autolog's
        pass

    class Own(keras.callbacks.TensorBoard):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)

    assert not listeners(Safe(tmp_path)).acting
    assert listeners(Own(tmp_path)).acting == ["Own"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of MLflow's own packages
def test_autolog_notes_the_same(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("here", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("here")
    mlflow.tensorflow.autolog(log_models=False, silent=True)
    try:
        noted = []
        for cls in (BackpropSequential, keras.Sequential):
            keras.utils.clear_session()  # the names begin anew
            keras.utils.set_random_seed(1)
            model = cls([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(1)])
            model.compile("adam", "mse", metrics=["mae"])
            model.fit(X, Y, epochs=3, batch_size=8, shuffle=False, verbose=0, validation_split=0.2)
            mlflow.flush_async_logging()
            run, client = mlflow.last_active_run(), mlflow.MlflowClient()
            histories = {
                name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
            noted.append((histories, run.data.params))
            if cls is BackpropSequential:
                assert model.fit_path.compiled and "act after batches" not in model.fit_path.reason
    finally:
        mlflow.tensorflow.autolog(disable=True, silent=True)
        mlflow.set_tracking_uri(None)
    (ours, our_parameters), (stock, stock_parameters) = noted
    assert ours.keys() == stock.keys() and len(ours["loss"]) == 3
    for name, points in stock.items():
        np.testing.assert_allclose(ours[name], points, rtol=0, atol=1e-5)
    assert our_parameters == stock_parameters
