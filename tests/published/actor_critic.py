"""Learning by rewards: actor–critic with a tape over an episode, clipped policies, Q-learning with a target network."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import keras_backprop
from tests.equality import compare
from tests.published import batches, fit, integers, numbers

STATES, ACTIONS, REWARDS = numbers(24, 4), integers(3, 24), numbers(24, seed=3)


def two_heads(k):
    inputs = keras.Input((4,))
    common = layers.Dense(8, activation="relu")(inputs)
    return k.Model(
        inputs, [layers.Dense(3, activation="softmax", name="actor")(common), layers.Dense(1, name="critic")(common)]
    )


def train(k):
    """The loss of an episode is a `compute_loss` of two outputs: returns, advantages that are constants, entropies."""

    class ActorCritic(k.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            probabilities, values = y_pred
            returns = tf.scan(lambda total, r: r + 0.9 * total, y["reward"], reverse=True)
            returns = (returns - tf.reduce_mean(returns)) / (tf.math.reduce_std(returns) + 1e-3)
            values = ops.squeeze(values, -1)
            log_p = ops.log(ops.take_along_axis(probabilities, y["action"][:, None], axis=1)[:, 0])
            actor = -ops.sum(log_p * ops.stop_gradient(returns - values))
            critic = ops.sum(keras.losses.Huber(reduction="none")(returns[:, None], values[:, None]))
            entropy = ops.sum(probabilities * ops.log(probabilities))
            return actor + 0.5 * critic + 0.01 * entropy

    inputs = keras.Input((4,))
    common = layers.Dense(8, activation="relu")(inputs)
    model = ActorCritic(inputs, [layers.Dense(3, activation="softmax")(common), layers.Dense(1)(common)])
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3))
    return fit(model, batches(STATES, {"action": ACTIONS, "reward": REWARDS}, size=7))


def train_episode(k):
    """Step by step eagerly, a list of tensors from many calls of the model under one tape of the user's own."""
    model = two_heads(k)
    optimizer, huber, losses = keras.optimizers.Adam(1e-2, epsilon=1e-3), keras.losses.Huber(), []
    random = np.random.RandomState(3)
    for _ in range(4):
        with tf.GradientTape() as tape:
            log_p, values, rewards, state = [], [], [], STATES[:1]
            for step in range(5):
                p, value = model(ops.convert_to_tensor(state))
                action = random.choice(3, p=np.squeeze(p).astype("float64") / np.squeeze(p).astype("float64").sum())
                log_p.append(ops.log(p[0, action]))
                values.append(value[0, 0])
                rewards.append(float(REWARDS[step + action]))
                state = STATES[step + action : step + action + 1]
            loss = sum(-lp * (r - v) + huber([r], [v]) for lp, v, r in zip(log_p, values, rewards, strict=True))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        losses.append(float(loss))
    return {"losses": losses, "model": compare.observe(model)}


def train_clipped(k):
    """A clipped objective of the old policy's probabilities, which come with the data; two models in turn; `train_on_batch`."""
    actor = k.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(3)])
    critic = k.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(1)])

    def policy(y, logits):
        action, old, advantage = ops.cast(y[:, 0], "int32"), y[:, 1], y[:, 2]
        log_p = ops.sum(ops.one_hot(action, 3) * ops.log_softmax(logits), axis=1)
        ratio = ops.exp(log_p - old)
        floor = ops.where(advantage > 0, 1.2 * advantage, 0.8 * advantage)
        return -ops.minimum(ratio * advantage, floor)

    actor.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3), policy)
    critic.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3), "mse")
    logs = []
    for step in range(8):
        part = slice(3 * step % 9, 3 * step % 9 + 6 + step % 3)
        old = tf.nn.log_softmax(actor.predict_on_batch(STATES[part])).numpy()
        advantage = REWARDS[part] - critic.predict_on_batch(STATES[part])[:, 0]
        y = np.stack([ACTIONS[part], old[np.arange(len(old)), ACTIONS[part]], advantage], axis=1).astype("float32")
        logs += [
            float(actor.train_on_batch(STATES[part], y)),
            float(critic.train_on_batch(STATES[part], REWARDS[part][:, None])),
        ]
    return {"logs": logs, "actor": compare.observe(actor), "critic": compare.observe(critic)}


def train_q(k):
    """Deep Q-learning from a replay of pictures, a target network, chosen actions by a mask; ours by `backward`."""
    ours = k.Model is not keras.Model

    def q_network():
        return k.Sequential(
            [
                keras.Input((4, 6, 6)),
                layers.Lambda(lambda x: ops.transpose(x, [0, 2, 3, 1]), output_shape=(6, 6, 4)),
                layers.Conv2D(3, 3, strides=2, activation="relu"),
                layers.Flatten(),
                layers.Dense(3, activation="linear"),
            ]
        )

    model, target = q_network(), q_network()
    target.set_weights(model.get_weights())
    optimizer = keras.optimizers.Adam(1e-2, epsilon=1e-3, clipnorm=1.0)
    loss_fn = keras.losses.Huber()

    def masked(y, q):
        return loss_fn(y[:, 0], ops.sum(q * y[:, 1:], axis=1))

    model.compile(optimizer, masked)
    frames, losses = numbers(30, 4, 6, 6), []
    for step in range(8):
        part = slice(2 * step, 2 * step + 6)
        future = ops.max(target(frames[2 * step + 1 : 2 * step + 7]), axis=1)
        updated = ops.cast(REWARDS[step : step + 6], "float32") + 0.9 * future
        y = ops.concatenate([updated[:, None], ops.one_hot(ACTIONS[step : step + 6], 3)], axis=1)
        if ours:
            result = keras_backprop.backward(model, frames[part], y)
            loss, gradients = result.loss, result.gradients
        else:
            with tf.GradientTape() as tape:
                loss = masked(y, model(frames[part]))
            gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        losses.append(float(loss))
        if step % 3 == 2:
            target.set_weights(model.get_weights())
    return {"losses": losses, "model": compare.observe(model)}
