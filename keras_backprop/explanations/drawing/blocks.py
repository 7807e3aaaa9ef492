"""A network of any shape drawn layer by layer: shapes, and the norms of the gradients that flow back."""

from collections import Counter
from dataclasses import dataclass, field

import keras

from keras_backprop.explanations.drawing.canvas import (
    ERROR,
    ERROR_EDGE,
    FAINT,
    GRADIENT,
    INPUT,
    INPUT_EDGE,
    LIT,
    NODE,
    NODE_EDGE,
    Canvas,
)
from keras_backprop.explanations.drawing.neuron_places import lit_blocks
from keras_backprop.explanations.observing.names import attention_role
from keras_backprop.explanations.writing.notation import norm
from keras_backprop.explanations.writing.rows import shown

SHARED, SHARED_EDGE = "#f3ecfa", "#7d4fb0"
FRAMED, FRAMED_EDGE = "#eef7f0", "#3b8454"  # recurrent layers and attention: more than one step inside
VANISHED = 0.01  # of the largest gradient beside an arrow
WIDTH, GAP_X, GAP_Y = 3.7, 0.7, 0.95
LONG_NAMES = 40  # LaTeX characters of the names of a layer's weights; longer ones get a line each


@dataclass(eq=False)
class Block:
    """A layer with its activation, an input, an operation, or the error.

    Attributes:
        title, detail: str, its name, and what it is.
        gradients: list of str, LaTeX: the norms of the gradients of its weights.
        sources: list of (Block, norm of the gradient that flows back to it or None).
        rank: int, how many blocks are above it at the least.
        framed: bool, whether it has a second frame: a recurrent layer, attention.
        inside: str, the path of the multi-head attention that it is a part of, or "".
        weights: tuple of the paths of its weights.
    """

    title: str
    detail: str
    fill: str = NODE
    edge: str = NODE_EDGE
    gradients: list = field(default_factory=list)
    sources: list = field(default_factory=list)
    rank: int = 0
    x: float = 0.0
    y: float = 0.0
    framed: bool = False
    inside: str = ""
    weights: tuple = ()

    @property
    def height(self):
        return 0.86 + 0.3 * len(self.gradients)


def draw(explanation, chain=None):
    """The drawing, a `Canvas`; with the blocks lit through which the paths of a `Chain` lead."""
    blocks = _blocks(explanation)
    rows = _lay_out(blocks)
    lanes = _lanes(blocks)
    right = max(block.x for block in blocks) + WIDTH / 2
    left = min(block.x for block in blocks) - WIDTH / 2
    bottom = rows[-1][0].y - max(block.height for block in rows[-1]) / 2
    lane_count = 1 + max((lane for _, _, _, lane in lanes), default=-1)
    edge = max(right + 0.5 + 0.55 * lane_count, left + 5.2)  # at the least as wide as the caption
    canvas = Canvas(left - 0.5, bottom - 0.4, edge, 1.25)
    examples = "1 example" if explanation.examples == 1 else f"{explanation.examples} examples"
    canvas.text(left, 0.92, explanation.model, size=16, align="left", weight="bold")
    canvas.text(left, 0.6, rf"{examples}.  Gradients flow up; beside an arrow $\Vert\partial E/\partial\,\cdot\Vert$.",
                FAINT, 13, align="left")  # fmt: skip
    for inside in dict.fromkeys(block.inside for block in blocks if block.inside):
        _draw_frame(canvas, inside, blocks)
    lit = lit_blocks(blocks, chain)
    for block in blocks:
        if id(block) in lit:
            canvas.box(block.x, block.y, WIDTH + 0.2, block.height + 0.2, LIT, LIT, zorder=0)
        _draw_block(canvas, block)
    edges = _short_edges(blocks)
    largest = max((g for block in blocks for _, g in block.sources if g is not None), default=0.0)
    for source, target, gradient in edges:
        forks = sum(other is source for other, _, _ in edges) > 1
        _draw_edge(canvas, source, target, gradient, forks, largest)
    for source, target, gradient, lane in lanes:
        _draw_lane(canvas, source, target, gradient, right + 0.3 + 0.55 * lane, blocks)
    return canvas


def _blocks(explanation):
    """The blocks in forward order."""
    links, uses, seen = shown(explanation), Counter(), Counter()
    uses.update(link.path for link in links if link.kind == "layer")
    made = _inputs(links)  # symbol -> the block that makes it
    blocks = list(made.values())
    paths = {weight.symbol: weight.path for weight in (*explanation.weights, *explanation.frozen)}
    error = Block(f"E = {explanation.loss:.4g}", "", ERROR, ERROR_EDGE)
    for link in links:
        if isinstance(link.op, keras.layers.InputLayer):
            made[link.output_symbols[0]] = made[link.input_symbols[0]]
            continue
        if link.kind == "loss":
            error.detail = f"{error.detail} + {link.path}" if error.detail else link.path
            block = error
        elif link.kind == "activation" and len(link.input_symbols) == 1 and link.input_symbols[0] in made:
            made[link.output_symbols[0]] = _activated(made[link.input_symbols[0]], link)
            continue
        elif link.kind == "regularizer" or not link.input_symbols or link.output_symbols[0] is None:
            continue
        else:
            seen[link.path] += 1
            block = _block(link, seen[link.path], uses.get(link.path, 1))
            entering = (*link.weight_symbols.values(), *link.input_symbols)
            block.weights = tuple(paths[symbol] for symbol in entering if symbol in paths)
            blocks.append(block)
        for symbol, dx in zip(link.input_symbols, link.downstream, strict=True):
            if symbol in made:
                block.sources.append((made[symbol], None if dx is None else norm(dx)))
        made.update(dict.fromkeys(link.output_symbols, block))
    if any(link.kind == "regularizer" for link in links):
        error.detail += " + penalties"
    # A loss that is computed from the logits meets its last layer twice: as predictions and as logits.
    error.sources = list({id(s): (s, g) for s, g in sorted(error.sources, key=lambda e: e[1] is not None)}.values())
    return _connected([*blocks, error])


def _inputs(links):
    """Symbol -> block, for the inputs of the network."""
    pairs = (pair for link in links for pair in zip(link.input_symbols, link.inputs, strict=True))
    given = {symbol: value for symbol, value in pairs if symbol and symbol.letter == "x"}
    return {
        symbol: Block(rf"$\mathbf{{{symbol.latex}}}$", f"input  {_shape(given[symbol])}", INPUT, INPUT_EDGE)
        for symbol in sorted(given, key=lambda s: s.subscript or 0)
    }


def _activated(block, link):
    """The block, in which the activation that its layer ends in is now named as well."""
    name = link.path.rsplit("/", 1)[-1].partition("·")[0].partition("-")[0]
    block.detail = block.detail.replace("  ", f", {name}  ", 1)
    return block


def _connected(blocks):
    """The blocks that the error depends on. Others compute masks, for instance."""
    reached, pending = set(), [blocks[-1]]
    while pending:
        block = pending.pop()
        if id(block) not in reached:
            reached.add(id(block))
            pending.extend(source for source, _ in block.sources)
    return [block for block in blocks if id(block) in reached]


def _block(link, use, uses):
    name = link.path.split("/", 1)[-1] if link.kind == "layer" else link.path
    kind = type(link.op).__name__ if link.kind == "layer" else "operation"
    title = f"{name}  ({use} of {uses} uses)" if uses > 1 else name
    colors = (SHARED, SHARED_EDGE) if uses > 1 else (NODE, NODE_EDGE)
    framed = link.kind == "layer" and (hasattr(link.op, "cell") or "Attention" in kind)
    colors = (FRAMED, FRAMED_EDGE) if framed and uses == 1 else colors
    names = [_letter(link.weight_symbols, attribute) for attribute in link.weight_gradients]
    lines = [
        rf"$\Vert\partial E/\partial {name}\Vert$ = {_number(norm(gradient))}"
        for name, gradient in zip(names, link.weight_gradients.values(), strict=True)
    ]
    if sum(map(len, names)) < LONG_NAMES and "cdot" not in "".join(lines):
        lines = ["     ".join(lines[i : i + 2]) for i in range(0, len(lines), 2)]
    block = Block(title, f"{kind}  {_shape(link.outputs[0])}", *colors, lines)
    block.framed = framed
    block.inside = link.path.rpartition("/")[0] if attention_role(link.op, link.path) else ""
    return block


def _letter(symbols, attribute):
    symbol = symbols.get(attribute)
    if symbol is not None and len(symbol.letter) == 1:
        return symbol.latex
    return rf"\mathrm{{{attribute.rsplit('.', 1)[-1]}}}".replace("_", r"\_")


def _lay_out(blocks):
    """Give every block its place, below all its sources; returns the rows of blocks."""
    for block in blocks:
        block.rank = 1 + max((source.rank for source, _ in block.sources), default=-1)
    rows = [[b for b in blocks if b.rank == rank] for rank in range(1 + max(b.rank for b in blocks))]
    top = 0.0
    for row in rows:
        row.sort(key=lambda b: sum(s.x for s, _ in b.sources) / len(b.sources) if b.sources else 0)
        tallest = max(block.height for block in row)
        for position, block in enumerate(row):
            block.x = (position - (len(row) - 1) / 2) * (WIDTH + GAP_X)
            block.y = top - tallest / 2
        if len(row) == 1 and row[0].sources:
            row[0].x = sum(s.x for s, _ in row[0].sources) / len(row[0].sources)
        top -= tallest + GAP_Y
    return rows


def _short_edges(blocks):
    return [(s, block, g) for block in blocks for s, g in block.sources if block.rank - s.rank == 1]


def _lanes(blocks):
    """Edges that skip rows run in lanes at the right: (source, target, gradient, lane), no two in one place."""
    lanes, taken = [], []
    for block in blocks:
        for source, gradient in block.sources:
            if block.rank - source.rank > 1:
                lane = 0
                while any(lane == other and source.rank < end and start < block.rank for start, end, other in taken):
                    lane += 1
                taken.append((source.rank, block.rank, lane))
                lanes.append((source, block, gradient, lane))
    return lanes


def _draw_frame(canvas, inside, blocks):
    """A dashed frame around the parts of a multi-head attention, with the path of the layer."""
    own = [block for block in blocks if block.inside == inside]
    ranks = range(min(b.rank for b in own), max(b.rank for b in own) + 1)
    own = [
        block
        for block in blocks
        if block.inside == inside or (block.rank in ranks and block.detail.startswith("operation"))
    ]
    left, right = min(b.x for b in own) - WIDTH / 2 - 0.2, max(b.x for b in own) + WIDTH / 2 + 0.2
    top = max(b.y + b.height / 2 for b in own) + 0.16
    bottom = min(b.y - b.height / 2 for b in own) - 0.2
    canvas.box((left + right) / 2, (top + bottom) / 2, right - left, top - bottom, "none", FRAMED_EDGE, dashed=True)
    canvas.text(left + 0.12, bottom + 0.2, inside, FRAMED_EDGE, 12.5, align="left", box=True)


def _draw_block(canvas, block):
    if block.framed:
        canvas.box(block.x, block.y, WIDTH + 0.16, block.height + 0.16, "none", block.edge, dashed=True)
    canvas.box(block.x, block.y, WIDTH, block.height, block.fill, block.edge)
    y = block.y + block.height / 2 - 0.27
    if not block.detail:
        canvas.text(block.x, block.y, block.title, size=15, weight="bold", zorder=5)
        return
    canvas.text(block.x, y, block.title, size=15, weight="bold", zorder=5)
    canvas.text(block.x, y - 0.28, block.detail, size=13, zorder=5)
    for position, line in enumerate(block.gradients):
        canvas.text(block.x, y - 0.6 - 0.3 * position, line, GRADIENT, 13, zorder=5)


def _flow(gradient, largest):
    """The number beside an arrow; of a gradient that has vanished with a sign that catches the eye."""
    vanished = 0 <= gradient < VANISHED * largest
    return rf"$\uparrow$ {_number(gradient)}" + (r"  $\blacktriangleleft$ vanishing" if vanished else "")


def _draw_edge(canvas, source, target, gradient, forks, largest):
    """Down, across, down. The number stands where the edge is alone: at the source if several edges end in the target."""
    start, end = (source.x, source.y - source.height / 2), (target.x, target.y + target.height / 2)
    middle = end[1] + GAP_Y / 2
    straight = abs(start[0] - end[0]) < 0.01
    if straight:
        canvas.arrow(start, end)
    else:
        canvas.route([start, (start[0], middle), (end[0], middle), end])
    if gradient is not None:
        joins = sum(target.rank - other.rank == 1 for other, _ in target.sources) > 1
        alone = not joins and straight and not forks
        y = middle if alone else (start[1] + middle) / 2 if joins else (end[1] + middle) / 2 + 0.03
        x = start[0] if joins else end[0]
        canvas.text(x + 0.1, y, _flow(gradient, largest), GRADIENT, align="left", box=True)


def _draw_lane(canvas, source, target, gradient, x, blocks):
    """Out at the side of the source, down the lane, in at the side of the target; around blocks that are in the way."""
    start, end = (source.x + WIDTH / 2, source.y - 0.12), (target.x + WIDTH / 2, target.y + 0.12)
    points = [start, (x, start[1]), (x, end[1]), end]
    if _blocked(source, blocks):
        below = source.x + WIDTH / 2 - 0.35, source.y - source.height / 2
        points[:2] = [below, (below[0], below[1] - 0.16), (x, below[1] - 0.16)]
    if _blocked(target, blocks):
        above = target.x + WIDTH / 2 - 0.35, target.y + target.height / 2
        points[-2:] = [(x, above[1] + 0.3), (above[0], above[1] + 0.3), above]
    canvas.route(points)
    if gradient is not None:
        canvas.text(x + 0.16, (start[1] + end[1]) / 2, _number(gradient), GRADIENT, 13, rotation=90, box=True)


def _blocked(block, blocks):
    """Whether another block stands between this one and the lanes."""
    return any(other.rank == block.rank and other.x > block.x for other in blocks)


def _shape(array):
    return " × ".join(map(str, array.shape))


def _number(value):
    """Three significant digits."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return rf"${mantissa}\cdot 10^{{{int(exponent)}}}$" if exponent else f"${mantissa}$"
