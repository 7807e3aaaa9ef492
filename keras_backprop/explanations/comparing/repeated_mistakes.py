"""The usual mistakes with what is there several times: time steps, positions, uses of a weight, branches, examples of a mask."""

import numpy as np

from keras_backprop.explanations.comparing.changed_graph import ChangedGraph
from keras_backprop.explanations.writing.notation import plain

__all__ = ["RepeatedMistakes"]

MOST_PLACES = 16
"""So many steps, positions or uses are tried one by one."""


class RepeatedMistakes(ChangedGraph):
    """What could have been counted once instead of several times, or left out."""

    def _of_time(self):
        steps = sorted({node.time for node in self.graph.nodes if node.time})
        if len(steps) < 2:
            return

        def cut(graph):
            for node in graph.nodes:
                for edge in node.edges:
                    state = edge.source.letter != "x" and edge.source.time is not None
                    if node.time and state and edge.source.time < node.time:
                        edge.matrix = None if edge.matrix is None else np.zeros_like(edge.matrix)
                        edge.local = None if edge.local is None else np.zeros_like(edge.local)

        yield "the path through time is missing: only the last time step was followed back", self._changed(cut)
        for step in steps:

            def only(graph, step=step):
                graph.uses = [use for use in graph.uses if use.node.time in (None, step)]

            yield (
                f"only time step {step} was counted: the gradient of a shared weight is the sum over all steps",
                self._changed(only),
            )
        hidden = {(n.layer, n.time): n for n in self.graph.nodes if n.letter == "h" and n.time is not None}
        inputs = {
            (use.node.layer, use.edge.source.time): use.edge.source
            for use in self.graph.uses
            if use.edge is not None and use.node.time and use.edge.source.letter == "x"
        }
        yield from self._of_other_steps(hidden, inputs, steps)

    def _of_other_steps(self, hidden, inputs, steps):
        """The state of the wrong step as the last factor; a factor left out in one step, or in all but the last."""

        def later(graph, put):
            for use in graph.uses:
                if use.edge is not None and use.node.time:
                    use.edge.source = put(graph, use.edge.source, use.node)

        def same_step(graph, source, node):
            other = hidden.get((node.layer, node.time))
            return _like(graph, other, self.graph) if source.letter == "h" and other is not None else source

        def other_end(graph, source, node):
            if source.letter != "x":
                return source
            last = max(time for layer, time in inputs if layer == node.layer)
            return _like(graph, inputs[node.layer, last + 1 - source.time], self.graph)

        yield (
            "h of the same step instead of the step before as the last factor ∂z/∂u",
            self._after(lambda graph: later(graph, same_step)),
        )
        yield "the inputs of the time steps in the wrong order", self._after(lambda graph: later(graph, other_end))

        def without(graph, kept):
            for node in graph.nodes:
                for edge in node.edges:
                    if node.time and edge.function and node.time not in kept:
                        edge.local = np.ones_like(edge.local)

        for step in steps[:MOST_PLACES]:
            yield (
                f"the derivative φ′ is missing in time step {step}: a factor was left out",
                self._changed(lambda graph, step=step: without(graph, set(steps) - {step})),
            )
        yield (
            "the derivative φ′ is only in the last time step: a factor was left out in the others",
            self._changed(lambda graph: without(graph, {steps[-1]})),
        )

    def _after(self, change):
        """The graph with its gradients, and then changed: what is read off it is the last factor."""
        graph = self._changed(lambda graph: None)
        change(graph)
        return graph

    def _of_repeated(self):
        """Positions of a layer, and uses of a shared weight."""
        paths = list(dict.fromkeys(use.path for use in self.graph.uses))
        for path in paths:
            uses = [use for use in self.graph.uses if use.path == path and not use.node.time]
            if not 1 < len(uses) <= MOST_PLACES:
                continue
            places = all(use.node.place for use in uses)
            for use in uses:
                where = (
                    f"position {','.join(map(str, use.node.place))}"
                    if places
                    else f"the use in {plain(use.node.name(0))}"
                )

                position = self.graph.uses.index(use)

                def only(graph, path=path, position=position):
                    kept = graph.uses[position]
                    graph.uses = [one for one in graph.uses if one.path != path or one is kept]

                yield (
                    f"only {where} was counted: the gradient of a weight that is used {len(uses)} times is the sum over all",
                    self._changed(only),
                )

            def mean(graph, path=path):
                same = [use for use in graph.uses if use.path == path]
                for use in same:
                    use.node.gradient = use.node.gradient / len(same)

            what = "positions" if places else "uses"
            yield f"the mean over the {len(uses)} {what} of a shared weight instead of the sum", self._after(mean)

    def _of_branches(self):
        """A way that joins others, and an error beside others."""
        for position, node in enumerate(self.graph.nodes):
            joins = len(node.edges) > 1 and not node.time and all(edge.local is not None for edge in node.edges)
            for n, edge in enumerate(node.edges) if joins else ():

                def cut(graph, position=position, n=n):
                    graph.nodes[position].edges[n].local = np.zeros_like(graph.nodes[position].edges[n].local)

                yield (
                    f"a path is missing: the branch from {plain(edge.source.name(0))} to {plain(node.name(0))}",
                    self._changed(cut),
                )
        heads = [n for n, head in enumerate(self.graph.heads) if head.targets is not None]
        for n in heads if len(heads) > 1 else ():

            def one(graph, n=n):
                graph.heads = [graph.heads[n]]

            yield (
                f"only the error {self.graph.heads[n].via} was counted, of {len(heads)} that are added",
                self._changed(one),
            )

    def _of_masks(self):
        """Dropout."""
        for position, node in enumerate(self.graph.nodes):
            for n, edge in enumerate(node.edges):
                if edge.rule != "dropout" or edge.local is None:
                    continue

                def put(local, position=position, n=n):
                    def change(graph):
                        one = graph.nodes[position]
                        one.edges[n].local = local
                        one.value = one.edges[n].source.value * local

                    return self._changed(change)

                yield "the scale 1/(1 − rate) of dropout is missing", put(np.where(edge.local != 0, 1.0, 0.0))
                yield "the mask of dropout is missing", put(np.ones_like(edge.local))


def _like(graph, node, before):
    """The node of a copied graph that stands where a node stands in the graph it was copied from."""
    return graph.nodes[before.nodes.index(node)]
