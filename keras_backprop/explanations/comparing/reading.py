"""Names as people write them, taken apart: sub- and superscripts, LaTeX, what is asked of the name, its letter and numbers."""

import re

__all__ = ["is_role", "kind_of", "normalised", "parsed_name"]

_SUB = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾", "0123456789()")


def normalised(text):
    """Subscripts and superscripts as ASCII, LaTeX without its braces and backslashes."""
    text = str(text).strip()
    text = re.sub(
        r"(^|∂|^d_?)\\?(gamma|beta|alpha)(?=[\d_^(\['₀-₉⁽′]|$)(?!.*/)",
        lambda m: m[1] + {"gamma": "γ", "beta": "β", "alpha": "α"}[m[2]],
        text,
    )
    text = re.sub(r"[⁽⁰¹²³⁴⁵⁶⁷⁸⁹⁾]+", lambda m: "^" + m[0].translate(_SUPER), text)
    text = re.sub(r"[₀-₉]+(?:,[₀-₉]+)*", lambda m: "_" + m[0].translate(_SUB), text)
    text = re.sub(r"\\frac\{(.+)\}\{(\\partial.+)\}$", r"\1/\2", text)
    text = text.replace("\\partial ", "∂").replace("\\partial", "∂").replace("\\delta", "δ")
    text = re.sub(r"_(\{?[\d,]+\}?)\^(\{?\(\d+\)\}?)", r"^\2_\1", text)  # the layer before the unit: w_{11}^{(2)}
    text = re.sub(r"^([A-Za-zδγβα]+)([\d,]+)\^(\(\d+\))$", r"\1^\3_\2", text)
    text = re.sub(r"^(∂|d)[LJC](?=[/_](?:∂|d))", r"\1E", text)  # L, J and C are other letters for the error
    text = text.replace("^{\\prime}", "'").replace("\\prime", "'").replace("′", "'").replace("{", "").replace("}", "")
    return re.sub(r"\s*([_^/,'])\s*", r"\1", text)


def kind_of(text):
    """What is asked of the name that is left."""
    for pattern, kind in (
        (r"(?:δ|delta)_?(.*)", "delta"),
        (r"(?:∂E?|dE)(?:/|_)(?:∂|d)_?(.+)", "gradient"),
        (r"(?:grad(?:ient)?)(?:\s+of\s+|[\s_]?)(.+)", "gradient"),
        (r"(?:Δ|Delta_?|change(?:\s+of)?\s+)(.+)", "change"),
        (r"(?:new|updated)[\s_]+(.+)", "update"),
        (r"(.+?)(?:'|\+|_?plus|[\s_]*(?:new|updated|after))", "update"),
        (r"d_?([A-Za-zγβα]\S*)", "gradient"),
    ):
        match = re.fullmatch(pattern, text)
        if match:
            return kind, match[1]
    return "value", text


def is_role(name, symbol):
    """Whether a name is that of a symbol with a role: W_Q, W2_Q, W_Q^(2)."""
    number = "" if symbol.subscript is None else symbol.subscript
    letters = re.sub(r"[^A-Za-z0-9]", "", normalised(name))
    return letters in (f"{symbol.letter}{number}{symbol.role}", f"{symbol.letter}{symbol.role}{number}")


def parsed_name(name, letter):
    """(letter, number or None, places, whether these count from 0) of `w^(2)_11`, `W2[0,1]`, `w2_11`, `w_5`, `z`."""
    match = re.fullmatch(
        r"(?P<letter>[A-Za-zγβα]?)_?(?:\^?\(?(?P<number>\d+)\)?)?"
        r"(?:_\(?(?P<places>\d+(?:,\d+)*)\)?|(?P<index>(?:\[[\d,\s]+\])+)|,(?P<more>\d+(?:,\d+)*))?",
        name,
    )  # fmt: skip
    if match is None or not (match["letter"] or letter):
        return None
    number = int(match["number"]) if match["number"] else None
    if match["index"]:
        return match["letter"] or letter, number, [int(n) for n in re.findall(r"\d+", match["index"])], True
    places = match["places"] or match["more"]
    return match["letter"] or letter, number, [int(n) for n in places.split(",")] if places else [], False
