"""The usual mistakes of the forward pass, after which the backward pass is done again with wrong values."""

import numpy as np

from keras_backprop.explanations.comparing.changed_graph import ChangedGraph, edges_with
from keras_backprop.explanations.writing.notation import plain

__all__ = ["ForwardMistakes"]


class ForwardMistakes(ChangedGraph):
    """What could have been left out, turned or done too late on the way forward. `mistakes.py` has those of the way back."""

    def _forward_mistakes(self):
        yield from self._without_biases()
        yield from self._turned()
        yield from self._without_activations()
        yield from self._of_states()
        yield from self._of_kernels()
        yield from self._of_ways()
        yield from self._next_step()

    def _without_biases(self):
        """Of one layer, and of all."""
        layers: dict = {}
        for position, node in enumerate(self.graph.nodes):
            if np.any(node.bias):
                layers.setdefault((node.letter, node.layer, node.time is not None), []).append(position)
        groups = [(positions, f" in {plain(self.graph.nodes[positions[0]].name(0))}") for positions in layers.values()]
        if len(layers) > 1:
            groups.append(([p for positions in layers.values() for p in positions], ""))
        for positions, where in groups:

            def without(graph, positions=positions):
                for p in positions:
                    graph.nodes[p].bias = 0.0

            yield from self._changed_forward(f"the biases were left out{where}", without)

    def _turned(self):
        """Square matrices with rows for columns."""
        for path in filter(self._is_square, self._matrices()):

            def turned(graph, path=path):
                for edge in edges_with(graph, path):
                    edge.matrix = edge.matrix.T

            yield from self._changed_forward(
                f"{self.spelling.weights[path].symbol} is transposed in the forward pass: the indices of the matrix are the "
                "other way round",
                turned,
            )

    def _without_activations(self):
        for positions, a, z in self._activations():

            def straight(graph, positions=positions):
                for p in positions:
                    graph.nodes[p].compute = lambda x: x
                    graph.nodes[p].edges[0].derive = lambda y, x: np.ones_like(x)

            yield from self._changed_forward(
                f"the activation is missing: {a} = {z}" if a else "the activations are missing: a = z", straight
            )

    def _of_states(self):
        """Recurrent layers without their state."""
        if not any(node.time for node in self.graph.nodes):
            return

        def alone(graph):
            for node in graph.nodes:
                for edge in node.edges:
                    before = node.time and edge.source.letter != "x" and edge.source.time == node.time - 1
                    if before and edge.matrix is not None:
                        edge.matrix = np.zeros_like(edge.matrix)

        yield from self._changed_forward("the state of the step before is missing: z = w·x + b only", alone)

    def _of_kernels(self):
        """Convolutions with the kernel turned."""
        for path in dict.fromkeys(e.weight for n in self.graph.nodes for e in n.edges if e.weight and "conv" in e.rule):
            kernel = self.graph.weights[path]
            if kernel.ndim < 3:
                continue
            turned = np.flip(kernel, tuple(range(kernel.ndim - 2)))

            def turn(graph, path=path, turned=turned):
                for edge in edges_with(graph, path):
                    edge.matrix = edge.made_of(turned)

            yield from self._changed_forward(
                "the kernel was flipped: layers slide it as it is (a cross-correlation)", turn
            )

    def _of_ways(self):
        """Sums of several ways with one of them left out."""
        for position, node in enumerate(self.graph.nodes):
            for n, edge in enumerate(node.edges) if len(node.edges) > 1 and node.compute is not None else ():
                if edge.local is None or not np.all(edge.local == 1) or node.time:
                    continue

                def without(graph, position=position, n=n):
                    one = graph.nodes[position]
                    compute = one.compute
                    one.compute = lambda *xs: compute(*[x * (i != n) for i, x in enumerate(xs)])

                yield from self._changed_forward(
                    f"the branch from {plain(edge.source.name(0))} to {plain(node.name(0))} was left out", without
                )

    def _next_step(self):
        news = self._updated()

        def updated(graph):
            for path, new in news.items():
                for edge in edges_with(graph, path):
                    edge.coefficients = edge.made_of(new)
            for use in graph.uses:
                if use.edge is not None or use.path not in news:
                    continue
                change = np.ravel(news[use.path])[use.of_units] - np.ravel(graph.weights[use.path])[use.of_units]
                if use.node.edges:
                    use.node.bias = use.node.bias + change
                else:  # a row of a table
                    use.node.value = use.node.value + change

        yield from self._changed_forward(
            "that is the value after the update: the updated weights were used in the forward pass", updated
        )
