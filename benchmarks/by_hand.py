"""The same training without Keras: what NumPy takes, and what one compiled TensorFlow loop takes, which is the limit.

A chain of dense layers, its backward pass written for just this chain: z = a·W + b, δ at the end (a − t)/n for softmax and
sigmoid with their cross-entropies, (a − t)·a·(1 − a)/n for sigmoid with half the mean squared error.
"""

import itertools

import numpy as np
import tensorflow as tf


def numpy_loop(task, epochs):
    """Train by NumPy, batch by batch. Returns the last error."""
    random = np.random.default_rng(0)
    weights = [w.astype("float32") for w in initial(task.sizes)]
    x, t = task.x.astype("float32"), task.targets().astype("float32")
    m, v = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    step, error = 0, 0.0
    for _ in range(epochs):
        order = random.permutation(len(x)) if task.shuffle else np.arange(len(x))
        for start in range(0, len(x), task.batch):
            rows = order[start : start + task.batch]
            a, δ = [x[rows]], t[rows]
            for i in range(0, len(weights), 2):
                z = a[-1] @ weights[i] + weights[i + 1]
                a.append(_np_activation(z, task.hidden if i < len(weights) - 2 else task.output))
            error = _np_error(a[-1], δ, task)
            δ = (a[-1] - δ) / len(rows) * (a[-1] * (1 - a[-1]) if task.squared else 1)
            gradients = []
            for i in range(len(weights) - 2, -1, -2):
                gradients[:0] = [a[i // 2].T @ δ, δ.sum(0)]
                if i:
                    h = a[i // 2]
                    δ = (δ @ weights[i].T) * ((h > 0) if task.hidden == "relu" else h * (1 - h))
            step += 1
            for k, g in enumerate(gradients):
                if task.adam:
                    m[k] += (g - m[k]) * np.float32(0.1)
                    v[k] += (g * g - v[k]) * np.float32(0.001)
                    rate = task.rate * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
                    weights[k] -= np.float32(rate) * m[k] / (np.sqrt(v[k]) + np.float32(1e-7))
                else:
                    weights[k] -= np.float32(task.rate) * g
        if task.stop is not None and error <= task.stop:
            break
    return float(error)


def compiled_loop(task, epochs):
    """Train by one `tf.function` that runs all epochs. Returns the last error."""
    weights = [tf.Variable(w, dtype=tf.float32) for w in initial(task.sizes)]
    m, v = ([tf.Variable(tf.zeros_like(w)) for w in weights] for _ in range(2))
    x, t = (tf.constant(data, tf.float32) for data in (task.x, task.targets()))
    n, batch = len(task.x), min(task.batch, len(task.x))
    step, error = tf.Variable(0.0), tf.Variable(1.0)

    def update(rows):
        values = [w.value() for w in weights]
        a, target = [tf.gather(x, rows)], tf.gather(t, rows)
        for i in range(0, len(values), 2):
            z = a[-1] @ values[i] + values[i + 1]
            a.append(_tf_activation(z, task.hidden if i < len(values) - 2 else task.output))
        error.assign(_tf_error(a[-1], target, task))
        δ = (a[-1] - target) / tf.cast(tf.shape(rows)[0], tf.float32)
        δ = δ * a[-1] * (1 - a[-1]) if task.squared else δ
        step.assign_add(1.0)
        for i in range(len(values) - 2, -1, -2):
            h = a[i // 2]
            of_W, of_b = tf.matmul(h, δ, transpose_a=True), tf.reduce_sum(δ, 0)
            if i:
                δ = tf.matmul(δ, values[i], transpose_b=True)
                δ = δ * (tf.cast(h > 0, tf.float32) if task.hidden == "relu" else h * (1 - h))
            for k, g in ((i, of_W), (i + 1, of_b)):
                if task.adam:
                    m[k].assign_add((g - m[k]) * 0.1)
                    v[k].assign_add((g * g - v[k]) * 0.001)
                    rate = task.rate * tf.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                    weights[k].assign_sub(rate * m[k] / (tf.sqrt(v[k]) + 1e-7))
                else:
                    weights[k].assign_sub(task.rate * g)

    @tf.function(autograph=False)
    def run():
        def epoch(i):
            order = tf.random.shuffle(tf.range(n)) if task.shuffle else tf.range(n)

            def one(start):
                update(order[start : start + batch])
                return (start + batch,)

            tf.while_loop(lambda start: start < n, one, (tf.constant(0),))
            return (i + 1,)

        def go_on(i):
            return (i < epochs) & (error > task.stop) if task.stop is not None else i < epochs

        tf.while_loop(go_on, epoch, (tf.constant(0),))
        return error.value()

    return float(run())


def initial(sizes):
    """Glorot's weights and zeros, as Keras would draw them."""
    random = np.random.default_rng(0)
    weights = []
    for i, o in itertools.pairwise(sizes):
        limit = (6 / (i + o)) ** 0.5
        weights += [random.uniform(-limit, limit, (i, o)), np.zeros(o)]
    return weights


def _np_activation(z, name):
    if name == "relu":
        return np.maximum(z, 0)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-z))
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _np_error(a, t, task):
    if task.squared:
        return ((a - t) ** 2).mean() / 2
    return -(t * np.log(a + 1e-7)).sum() / len(a)


def _tf_activation(z, name):
    return {"relu": tf.nn.relu, "sigmoid": tf.sigmoid, "softmax": tf.nn.softmax}[name](z)


def _tf_error(a, t, task):
    if task.squared:
        return tf.reduce_mean(tf.square(a - t)) / 2
    return -tf.reduce_mean(tf.reduce_sum(t * tf.math.log(a + 1e-7), 1))
