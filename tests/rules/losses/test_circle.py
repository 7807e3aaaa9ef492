"""The rule of `rules/losses/circle.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers, losses

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.rules.losses.checking import check_loss, numbers

LABELS = np.array([0, 1, 0, 2, 1, 0])  # 2 has no partner
OPTIONS = {
    "stock": {},
    "gentle": {"gamma": 2.0, "margin": 0.25},
    "diagonal": {"gamma": 4.0, "remove_diagonal": False},
    "sum": {"gamma": 4.0, "reduction": "sum"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_rule(name):
    labels = LABELS if name == "diagonal" else LABELS % 2
    unit = layers.UnitNormalization(dtype="float64")
    check_loss(losses.Circle(**OPTIONS[name]), labels, numbers(6, 4), unit, differences=name != "stock")


def test_distant_embeddings():
    check_loss(losses.Circle(gamma=2.0), LABELS % 2, numbers(6, 4), differences=False)


def test_references():
    a, r = tf.constant(numbers(6, 4)) / 4, tf.constant(numbers(5, 4, seed=1)) / 4
    t, s = tf.constant(LABELS % 2), tf.constant([0, 1, 1, 0, 1])
    function = losses.circle
    record = Record()
    y = record.run_as(function, function, function, "loss", t, a, ref_labels=s, ref_embeddings=r, gamma=3.0)
    ours = sweep(record.calls, [(y, tf.ones_like(y))], inputs=[a, r])
    with tf.GradientTape() as tape:
        tape.watch([a, r])
        y = function(t, a, ref_labels=s, ref_embeddings=r, gamma=3.0)
    for x, theirs in zip((a, r), tape.gradient(y, [a, r]), strict=True):
        np.testing.assert_allclose(ours.input_gradient(x), theirs, rtol=1e-10, atol=1e-12)


def test_a_label_without_a_partner_has_a_finite_gradient():
    function = losses.circle
    a = tf.constant(numbers(6, 4)) / 4
    record = Record()
    y = record.run_as(function, function, function, "loss", tf.constant(LABELS), a)
    assert np.all(np.isfinite(sweep(record.calls, [(y, tf.ones_like(y))], inputs=[a]).input_gradient(a)))
