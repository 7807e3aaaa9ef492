"""Findings, as a section of a report."""

from html import escape
from typing import Any

from keras_backprop.report.page import section


def findings_section(findings: Any) -> str:
    """What was found, in the order in which it is given.

    Args:
        findings: list of objects with `title`, `evidence`, `remedy`, `path` and `severity`; or None where nobody has looked.

    Returns:
        HTML; empty for None.
    """
    if findings is None:
        return ""
    findings = list(getattr(findings, "findings", findings))
    if not findings:
        return section("Findings", "<p>Nothing was found that is known to go wrong.</p>")
    return section("Findings", *map(_finding, findings))


def _finding(finding):
    rows = []
    for name in ("severity", "path", "evidence", "remedy"):
        value = getattr(finding, name, None)
        if value not in (None, ""):
            rows.append(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>")
    return f'<div class="finding"><h3>{escape(str(finding.title))}</h3><dl>{"".join(rows)}</dl></div>'
