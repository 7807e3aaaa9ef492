"""The products: totals, single examples, norms, weighted sums, for the shapes that rules build them from."""

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.convolution_gradient import Convolution, Window
from keras_backprop.weight_gradients import Contraction, Lookup, Repeated, Total, add

RANDOM = np.random.default_rng(0)


def tensor(*shape):
    return tf.constant(RANDOM.normal(size=shape))


PRODUCTS = {
    "outer": (lambda: Contraction("i,o->io", tensor(4, 3), tensor(4, 2)), (3, 2)),
    "outer, positions": (lambda: Contraction("i,o->io", tensor(4, 5, 3), tensor(4, 5, 2)), (3, 2)),
    "outer, many positions": (lambda: Contraction("i,o->io", tensor(4, 3, 5, 2), tensor(4, 3, 5, 2)), (2, 2)),
    "outer of two axes": (lambda: Contraction("i,ho->iho", tensor(4, 5, 3), tensor(4, 5, 2, 3)), (3, 2, 3)),
    "sum": (lambda: Contraction("o->o", tensor(4, 2)), (2,)),
    "sum over positions": (lambda: Contraction("o->o", tensor(4, 5, 6, 2)), (2,)),
    "sum of two axes": (lambda: Contraction("ho->ho", tensor(4, 5, 3, 2)), (3, 2)),
    "scale": (lambda: Contraction("o,o->o", tensor(4, 5, 2), tensor(4, 5, 2)), (2,)),
    "explicit": (lambda: Contraction("nti,nto->io", tensor(4, 5, 3), tensor(4, 5, 2)), (3, 2)),
    "explicit, batch not first": (lambda: Contraction("tni,tno->oi", tensor(5, 4, 3), tensor(5, 4, 2)), (2, 3)),
    "explicit sum": (lambda: Contraction("nto->o", tensor(4, 5, 2)), (2,)),
    "lookup": (lambda: Lookup(tf.constant([[0, 1], [1, 1], [3, 0], [2, 2]]), tensor(4, 2, 3), 5), (5, 3)),
    "lookup, one place": (lambda: Lookup(tf.constant([0, 1, 1, 4]), tensor(4, 3), 5), (5, 3)),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", PRODUCTS)
def test_the_four_methods_agree(name, dynamic):
    make, shape = PRODUCTS[name]
    product = make()
    c = tf.constant(RANDOM.uniform(size=4))

    def four():
        return [
            tf.convert_to_tensor(product.total()), product.per_example(), product.squared_norms(),
            tf.convert_to_tensor(product.weighted_total(c)),
        ]  # fmt: skip

    total, single, norms, weighted = (tf.function(four) if dynamic else four)()
    assert total.shape == shape and single.shape == (4, *shape)
    np.testing.assert_allclose(tf.reduce_sum(single, 0), total, rtol=1e-12)
    np.testing.assert_allclose(norms, np.sum(np.reshape(single, (4, -1)) ** 2, 1), rtol=1e-12)
    np.testing.assert_allclose(weighted, np.tensordot(c, single, 1), rtol=1e-12)


def test_an_unknown_batch_size():
    @tf.function(input_signature=[tf.TensorSpec((None, None, 3)), tf.TensorSpec((None, None, 2))])
    def four(x, dy):
        product = Contraction("i,o->io", x, dy)
        return product.total(), product.per_example(), product.squared_norms(), product.weighted_total(dy[:, 0, 0])

    x, dy = tf.cast(tensor(4, 5, 3), tf.float32), tf.cast(tensor(4, 5, 2), tf.float32)
    for ours, expected in zip(
        four(x, dy),
        (
            np.einsum("nti,nto->io", x, dy),
            np.einsum("nti,nto->nio", x, dy),
            np.sum(np.einsum("nti,nto->nio", x, dy) ** 2, (1, 2)),
            np.einsum("n,nti,nto->io", dy[:, 0, 0], x, dy),
        ),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_norms_of_long_sequences_of_narrow_layers_and_short_of_wide_ones_agree():
    for positions, width in ((50, 2), (2, 50)):  # the product, and the Gram matrices
        x, dy = tensor(3, positions, width), tensor(3, positions, width)
        expected = np.sum(np.einsum("nti,nto->nio", x, dy) ** 2, (1, 2))
        np.testing.assert_allclose(Contraction("i,o->io", x, dy).squared_norms(), expected, rtol=1e-10)


def test_a_total_has_no_single_examples_and_says_why():
    total = Total(tensor(3), reason="the batch statistics couple the examples")
    for method in (total.per_example, total.squared_norms, lambda: total.weighted_total(tensor(4))):
        with pytest.raises(ValueError, match="no gradient per example: the batch statistics couple the examples"):
            method()


def test_a_lookup_stays_sparse_and_sparse_gradients_add_up_sparsely():
    make, _ = PRODUCTS["lookup"]
    first, second = make().total(), make().total()
    assert isinstance(first, tf.IndexedSlices)
    both = add([first, second])
    assert isinstance(both, tf.IndexedSlices)
    np.testing.assert_allclose(
        tf.convert_to_tensor(both), tf.convert_to_tensor(first) + tf.convert_to_tensor(second), rtol=1e-12
    )
    dense = add([first, tf.ones((5, 3), tf.float64)])
    np.testing.assert_allclose(dense, tf.convert_to_tensor(first) + 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("i,o->io", [(3, 50, 4), (3, 50, 7)]),  # the wider to the right, as it is
        ("i,o->io", [(3, 50, 7), (3, 50, 4)]),  # turned
        ("i,ho->iho", [(3, 50, 20), (3, 50, 2, 3)]),  # turned, of three axes
        ("o->o", [(3, 5, 4)]),
        ("ab->ab", [(3, 5, 2, 4)]),
        ("o,o->o", [(3, 5, 4), (3, 5, 4)]),
    ],
)
def test_once_norms_were_asked_for_sums_are_made_of_what_they_needed(equation, shapes):
    rng = np.random.default_rng(0)
    factors = [tf.constant(rng.normal(size=shape)) for shape in shapes]
    c = tf.constant(rng.normal(size=3))
    fresh, asked = Contraction(equation, *factors), Contraction(equation, *factors)
    single = fresh.per_example()
    norms = tf.reduce_sum(tf.square(single), list(range(1, len(single.shape))))
    np.testing.assert_allclose(asked.squared_norms(), norms, rtol=1e-12)
    assert asked.singles is not None
    for product, kept in ((asked, [1, 1, 1]), (asked.only(tf.constant([1, 0, 1])), [1, 0, 1])):
        np.testing.assert_allclose(
            product.per_example(), single * np.reshape(kept, [3] + [1] * (len(single.shape) - 1)), rtol=1e-12
        )
        np.testing.assert_allclose(product.weighted_total(c), tf.tensordot(c * kept, single, 1), rtol=1e-12)
        assert product.weighted_total(c).shape == fresh.total().shape


@pytest.mark.parametrize(
    "make",
    [
        lambda: Contraction("i,o->io", tensor(3, 50, 4), tensor(3, 50, 7)),
        lambda: Contraction("o,o->o", tensor(3, 5, 4), tensor(3, 5, 4)),
        lambda: Convolution(tensor(3, 8, 2), tensor(3, 7, 4), (2, 2, 4), Window(1)),
    ],
)
def test_what_norms_have_needed_inside_of_a_loop_is_not_used_outside(make):
    """Observers ask for the gradients of single examples in loops of at most one turn."""
    product, c = make(), tf.constant([1.0, 2.0, 3.0], tf.float64)

    @tf.function
    def both():
        zeros = tf.zeros(3, tf.float64)
        norms = tf.while_loop(lambda due, _: due, lambda *_: (False, product.squared_norms()), (True, zeros))[1]
        return norms, product.per_example(), product.weighted_total(c), product.squared_norms()

    norms, single, weighted, again = both()
    np.testing.assert_allclose(norms, tf.reduce_sum(tf.square(tf.reshape(single, (3, -1))), 1))
    np.testing.assert_allclose(weighted, tf.tensordot(c, single, 1))
    np.testing.assert_allclose(again, norms)


@pytest.mark.parametrize("offset", [0, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("kind", ["product", "lookup"])
@pytest.mark.parametrize("compiled", [False, True])
def test_norms_where_the_positions_cancel_each_other_are_not_too_small(kind, offset, compiled):
    """Inputs far from 0, and upstream gradients of the mean 0: what is left is a thousandth of a part, or less."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3, 6, 40)) + offset).astype("float32")
    dy = rng.normal(size=(3, 6, 50)).astype("float32")
    dy -= dy.mean(1, keepdims=True)
    if kind == "product":
        part = Contraction("i,o->io", tf.constant(x), tf.constant(dy))
        exact = np.einsum("nti,nto->nio", x.astype("float64"), dy.astype("float64"))
    else:  # one row of the table, all the time
        part = Lookup(tf.zeros([3, 6], tf.int32), tf.constant(dy * np.float32(max(offset, 1))), 4)
        exact = part.dy.numpy().astype("float64").sum(1)
    norms = (tf.function(part.squared_norms) if compiled else part.squared_norms)().numpy() ** 0.5
    exact = np.sqrt((exact.reshape(3, -1) ** 2).sum(1))
    if kind == "product":
        assert (norms >= exact * (1 - 1e-5)).all() and (norms <= exact * (1.2 if offset == 1e5 else 1.01)).all()
    else:  # what is left is rounding alone, and the sum may be off by as much
        assert (norms >= exact).all() and (norms <= 1e-4 * np.linalg.norm(part.dy, axis=(1, 2))).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_norm_does_not_depend_on_whose_positions_cancel(compiled):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(3, 6, 40)).astype("float32"), rng.normal(size=(3, 6, 50)).astype("float32")
    dy -= 0.9 * dy.mean(1, keepdims=True)

    def norms(offset):
        part = Contraction("i,o->io", tf.constant(x + np.float32([[[0]], [[0]], [[offset]]])), tf.constant(dy))
        return (tf.function(part.squared_norms) if compiled else part.squared_norms)().numpy()

    np.testing.assert_array_equal(norms(0)[:2], norms(1e4)[:2])
    assert (norms(0) > (np.square(np.einsum("nti,nto->nio", x, dy)).sum((1, 2)))).all()


def test_steps_within_steps_are_added_in_single_precision():
    """What overflows is one step's sum, and no other."""
    per_step = [[4e4], [1e4], [2e4], [4e4], [3e4], [-6e4]]
    within = Repeated(Contraction("o->o", tf.constant(per_step, tf.float16)), steps=tf.constant(2))
    np.testing.assert_allclose(Repeated(within, steps=tf.constant(3)).total(), [8e4], rtol=1e-3)
    np.testing.assert_allclose(Repeated(within, steps=3).total(), [8e4], rtol=1e-3)
