"""Private Keras and TensorFlow stay behind their doors: no attribute with an underscore that is not this package's own."""

import ast
import pathlib

import keras_backprop

PACKAGE = pathlib.Path(keras_backprop.__file__).parent
OTHERS = {"_negative_number_matcher"}  # of argparse, which has no other way to be told what a number looks like
DOORS = (PACKAGE / "_keras", PACKAGE / "_tensorflow")


def inside():
    return [path for path in PACKAGE.rglob("*.py") if not any(door in (path, *path.parents) for door in DOORS)]


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def defined(tree):
    """The names with an underscore that a module gives to things of its own."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def used(tree):
    """The names with an underscore that a module asks objects for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            yield node.lineno, str(getattr(node.args[1], "value", ""))


def intruders(trees):
    own = {name for tree in trees.values() for name in defined(tree)}
    return [
        f"{path}:{line} {name}"
        for path, tree in trees.items()
        for line, name in used(tree)
        if is_private(name) and name not in own and name not in OTHERS
    ]


def test_private_attributes_have_names_of_ours():
    trees = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in inside()}
    assert len(trees) > 100
    assert not intruders(trees)


def test_an_intruder_would_be_seen():
    tree = ast.parse(
        "def f(layer):\n    return layer._flatten_layers()\n\ngetattr(f, '_losses', None)\nself._mine = f._mine"
    )
    assert sorted(intruders({"a.py": tree})) == ["a.py:2 _flatten_layers", "a.py:4 _losses"]
