"""A formula's text without the terms that are 0: of several outputs the error often depends on one only."""

import ast

__all__ = ["without"]


def without(expression: str, letters: set) -> str:
    """The text that is left where these letters are 0, in functions that are linear in them; "0" where nothing is."""
    return ast.unparse(_Zeros(letters).visit(ast.parse(expression, mode="eval").body))


class _Zeros(ast.NodeTransformer):
    def __init__(self, letters):
        self.letters = letters

    def visit_Name(self, node):
        return ast.Constant(0) if node.id in self.letters else node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        return node.operand if _is_zero(node.operand) else node

    def visit_Attribute(self, node):  # W.T
        self.generic_visit(node)
        return node.value if _is_zero(node.value) else node

    def visit_Call(self, node):
        node.args = list(map(self.visit, node.args))
        return ast.Constant(0) if node.args and _is_zero(node.args[0]) else node

    def visit_BinOp(self, node):
        self.generic_visit(node)
        zeros = _is_zero(node.left), _is_zero(node.right)
        if isinstance(node.op, ast.Add) and any(zeros):
            return node.right if zeros[0] else node.left
        if isinstance(node.op, ast.Sub) and any(zeros):
            return node.left if zeros[1] else ast.UnaryOp(ast.USub(), node.right)
        if isinstance(node.op, (ast.Mult, ast.MatMult)) and any(zeros):
            return ast.Constant(0)
        return node.left if isinstance(node.op, ast.Div) and zeros[0] else node


def _is_zero(node):
    return isinstance(node, ast.Constant) and node.value == 0
