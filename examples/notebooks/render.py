"""Run the notebooks of this folder and write each, with what it prints and draws, as a page of the documentation.

python examples/notebooks/render.py            # all, into docs/notebooks
"""

import ast
import contextlib
import io
import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
PAGES = HERE.parents[1] / "docs" / "notebooks"


def sources():
    """The notebooks, sorted by name."""
    return sorted(path for path in HERE.glob("*.py") if path.name != "render.py")


def cells(text):
    """(kind, text) of every cell of a notebook in the percent format: "markdown" or "code"."""
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            yield "markdown", re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
        else:
            yield "code", body.strip()


def run(code, namespace):
    """Run a cell. Returns what it printed, and the value of its last line if that is an expression, else None."""
    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), namespace)
        value = eval(compile(last, "<cell>", "eval"), namespace) if last is not None else None
    return printed.getvalue(), value


def rendered(path):
    """The page of a notebook, Markdown. Pictures go into the working directory."""
    parts, namespace = [], {"__name__": "notebook"}
    for kind, text in cells(path.read_text(encoding="utf-8")):
        if kind == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        printed, value = run(text, namespace)
        if printed.strip():
            parts.append(f"```\n{printed.rstrip()}\n```")
        if isinstance(value, pathlib.Path):
            parts.append(f"![{value.stem.replace('_', ' ')}]({value.name})")
        elif hasattr(value, "_repr_markdown_"):
            parts.append(value._repr_markdown_().rstrip())
        elif value is not None:
            parts.append(f"```\n{value}\n```")
    return "\n\n".join(parts) + "\n"


def main():
    PAGES.mkdir(parents=True, exist_ok=True)
    os.chdir(PAGES)
    for path in sources():
        page = rendered(path)
        (PAGES / f"{path.stem}.md").write_text(page, encoding="utf-8")
        print(path.stem, file=sys.stderr)


if __name__ == "__main__":
    main()
