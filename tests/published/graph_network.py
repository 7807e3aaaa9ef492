"""Networks on graphs: messages gathered along edges and summed by segments; molecules as ragged batches."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

NODES, FEATURES = 14, numbers(14, 5)
EDGES = integers(NODES, 2, 40, seed=3)
LABELS = integers(3, NODES, seed=4)


def feed_forward(units):
    parts = []
    for n in units:
        parts += [layers.BatchNormalization(), layers.Dropout(0.1, seed=n), layers.Dense(n, activation="gelu")]
    return keras.Sequential(parts)


class GraphConvolution(layers.Layer):
    def __init__(self, units, aggregation="mean", combination="concat", **options):
        super().__init__(**options)
        self.aggregation, self.combination = aggregation, combination
        self.prepare, self.update = feed_forward(units), feed_forward(units)
        if combination == "gru":
            self.update = layers.GRU(units[-1], recurrent_dropout=0.1, seed=1)

    def aggregate(self, indices, messages, nodes):
        n = ops.shape(nodes)[0]
        function = getattr(tf.math, f"unsorted_segment_{self.aggregation}")
        return function(messages, indices, num_segments=n)

    def call(self, inputs):
        nodes, edges, weights = inputs
        receivers, senders = edges[0], edges[1]
        messages = self.prepare(ops.take(nodes, senders, axis=0))
        if weights is not None:
            messages = messages * ops.expand_dims(weights, -1)
        gathered = self.aggregate(receivers, messages, nodes)
        if self.combination == "gru":
            return ops.normalize(self.update(ops.stack([nodes, gathered], axis=1)), axis=-1)
        if self.combination == "concat":
            return self.update(ops.concatenate([nodes, gathered], axis=1))
        return self.update(nodes + gathered)


def node_classifier(aggregation, combination):
    def train(k):
        class Classifier(k.Model):
            def __init__(self):
                super().__init__()
                self.nodes, self.edges = FEATURES, EDGES
                self.weights_of_edges = ops.ones((EDGES.shape[1],)) / EDGES.shape[1]
                self.weights_of_edges = self.weights_of_edges / ops.sum(self.weights_of_edges)
                self.before, self.after = feed_forward([6]), feed_forward([6])
                self.first = GraphConvolution([6], aggregation, combination)
                self.second = GraphConvolution([6], aggregation, combination)
                self.logits = layers.Dense(3)

            def call(self, indices):
                x = self.before(ops.convert_to_tensor(self.nodes))
                for layer in (self.first, self.second):
                    x = layer((x, self.edges, self.weights_of_edges)) + x
                return self.logits(ops.take(self.after(x), indices, axis=0))

        model = Classifier()
        model.compile(
            keras.optimizers.SGD(0.05),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="acc")],
        )
        return fit(model, np.arange(NODES), LABELS, batch_size=4)

    return train


train = node_classifier("mean", "concat")
train_max = node_classifier("max", "add")
train_gru = node_classifier("sum", "gru")


class GraphAttention(layers.Layer):
    """Weights of the neighbours by a softmax over segments, a kernel and an attention kernel of its own."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[0][-1], self.units), regularizer="l2", name="kernel")
        self.kernel_attention = self.add_weight(
            shape=(2 * self.units, 1), initializer="glorot_uniform", name="attention"
        )

    def call(self, inputs):
        nodes, edges = inputs
        h = ops.matmul(nodes, self.kernel)
        pairs = tf.reshape(tf.gather(h, edges), (tf.shape(edges)[0], -1))
        scores = tf.squeeze(tf.nn.leaky_relu(tf.matmul(pairs, self.kernel_attention)), -1)
        scores = tf.math.exp(tf.clip_by_value(scores, -2, 2))
        sums = tf.math.unsorted_segment_sum(scores, edges[:, 0], tf.reduce_max(edges[:, 0]) + 1)
        sums = tf.repeat(sums, tf.math.bincount(tf.cast(edges[:, 0], "int32")))
        share = scores / sums
        neighbours = tf.gather(h, edges[:, 1])
        return tf.math.unsorted_segment_sum(neighbours * share[:, tf.newaxis], edges[:, 0], tf.shape(nodes)[0])


def train_attention(k):
    """The whole graph lies in the model; a batch is a list of nodes."""
    edges = np.unique(np.concatenate([EDGES.T, np.stack([np.arange(NODES)] * 2, 1)]), axis=0)

    class Network(k.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.heads = layers.Dense(6, "relu"), [GraphAttention(3) for _ in range(2)]
            self.out = layers.Dense(3)

        def call(self, indices):
            x = self.dense(FEATURES)
            x = ops.elu(ops.concatenate([head([x, edges]) for head in self.heads], axis=-1)) + x
            return ops.take(self.out(x), indices, axis=0)

    model = Network()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return fit(model, batches(np.arange(NODES), LABELS, size=4))


def molecules(size=4):
    """Molecules of different numbers of atoms; a batch is one large graph with an indicator of the molecule."""
    generator = np.random.default_rng(8)
    counts = generator.integers(2, 6, size=18)
    atoms = tf.RaggedTensor.from_row_lengths(numbers(int(counts.sum()), 4), counts)
    bonds = [np.array([[i, (i + 1) % n] for i in range(n)] + [[0, 0]]) for n in counts]
    pairs = tf.RaggedTensor.from_row_lengths(np.concatenate(bonds).astype("int64"), [len(b) for b in bonds])
    kinds = tf.RaggedTensor.from_row_lengths(numbers(int(counts.sum()) + 18, 3, seed=1), [len(b) for b in bonds])

    def merge(data, y):
        atoms, bonds, pairs = data
        n, m = atoms.row_lengths(), bonds.row_lengths()
        indices = tf.range(tf.shape(n)[0])
        indicator = tf.repeat(indices, n)
        shift = tf.pad(tf.cumsum(tf.cast(n, "int64"))[:-1], [(1, 0)])
        shift = tf.gather(shift, tf.repeat(indices, m))
        pairs = (
            pairs.merge_dims(0, 1).to_tensor()
            if isinstance(pairs.merge_dims(0, 1), tf.RaggedTensor)
            else pairs.merge_dims(0, 1)
        )
        return (atoms.merge_dims(0, 1), bonds.merge_dims(0, 1), pairs + shift[:, None], indicator), y

    y = integers(2, 18, 1, seed=9)
    return tf.data.Dataset.from_tensor_slices(((atoms, kinds, pairs), y)).batch(size).map(merge)


def train_message_passing(k):
    """Edge networks, a GRU cell as the update, padding to molecules with `dynamic_partition`, attention over atoms."""

    class EdgeNetwork(layers.Layer):
        def build(self, input_shape):
            self.atom_dim, self.bond_dim = input_shape[0][-1], input_shape[1][-1]
            self.kernel = self.add_weight(shape=(self.bond_dim, self.atom_dim * self.atom_dim), name="kernel")
            self.bias = self.add_weight(shape=(self.atom_dim * self.atom_dim,), initializer="zeros", name="bias")

        def call(self, inputs):
            atoms, bonds, pairs = inputs
            bonds = tf.reshape(ops.matmul(bonds, self.kernel) + self.bias, (-1, self.atom_dim, self.atom_dim))
            neighbours = tf.expand_dims(tf.gather(atoms, pairs[:, 1]), axis=-1)
            moved = tf.squeeze(ops.matmul(bonds, neighbours), axis=-1)
            return tf.math.unsorted_segment_sum(moved, pairs[:, 0], num_segments=tf.shape(atoms)[0])

    class MessagePassing(layers.Layer):
        def __init__(self, units, steps=3):
            super().__init__()
            self.units, self.steps = units, steps

        def build(self, input_shape):
            self.message, self.update = EdgeNetwork(), layers.GRUCell(self.units)
            self.pad = max(0, self.units - input_shape[0][-1])

        def call(self, inputs):
            atoms, bonds, pairs = inputs
            x = tf.pad(atoms, [(0, 0), (0, self.pad)])
            for _ in range(self.steps):
                x, _ = self.update(self.message([x, bonds, pairs]), x)
            return x

    class Partition(layers.Layer):
        def __init__(self, size):
            super().__init__()
            self.size = size

        def call(self, inputs):
            x, indicator = inputs
            parts = tf.dynamic_partition(x, indicator, self.size)
            counts = [tf.shape(p)[0] for p in parts]
            most = tf.reduce_max(counts)
            stacked = tf.stack([tf.pad(p, [(0, most - n), (0, 0)]) for p, n in zip(parts, counts, strict=True)])
            used = tf.squeeze(tf.where(tf.reduce_sum(stacked, (1, 2)) != 0), axis=-1)
            return tf.gather(stacked, used, axis=0)

    class Readout(layers.Layer):
        def __init__(self, dim, size):
            super().__init__()
            self.partition, self.attention = Partition(size), layers.MultiHeadAttention(2, dim)
            self.dense, self.norm, self.pool = (
                layers.Dense(dim, "relu"),
                layers.LayerNormalization(),
                layers.GlobalAveragePooling1D(),
            )

        def call(self, inputs):
            x = self.partition(inputs)
            mask = tf.reduce_any(tf.not_equal(x, 0.0), axis=-1)
            a = self.norm(x + self.attention(x, x, attention_mask=mask[:, tf.newaxis, :]))
            return self.pool(a + self.dense(a))

    class Network(k.Model):
        def __init__(self):
            super().__init__()
            self.passing, self.readout, self.out = MessagePassing(6), Readout(6, 4), layers.Dense(1, "sigmoid")

        def call(self, inputs):
            atoms, bonds, pairs, indicator = inputs
            return self.out(self.readout([self.passing([atoms, bonds, pairs]), indicator]))

    model = Network()
    model.compile(keras.optimizers.SGD(0.05), keras.losses.BinaryCrossentropy(), metrics=["AUC"])
    return fit(model, molecules(), class_weight={0: 2.0, 1: 0.5})
