"""What `diagnose` says: findings, worst first, as text, Markdown and HTML."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SEVERITIES = ("critical", "warning", "note")
"""Training cannot work; it will be slow or worse than it could be; worth a look."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a model, its data or its training.

    Attributes:
        title: str, what it is, in a few words.
        evidence: str, the numbers that show it.
        remedy: str, what helps.
        path: str, of the layer, weight or part that is concerned.
        severity: "critical" (training cannot work), "warning" (it will be slow, or worse than it could be) or "note".
    """

    title: str
    evidence: str
    remedy: str
    path: str = ""
    severity: str = "warning"

    def __str__(self) -> str:
        where = f" [{self.path}]" if self.path else ""
        return f"{self.severity}: {self.title}{where}\n  evidence: {self.evidence}\n  remedy: {self.remedy}"


class Diagnosis(Sequence):
    """The findings about a model on one batch, worst first. A sequence of `Finding`; empty if nothing was found.

    Attributes:
        findings: list of `Finding`.
        looked_at: dict, what was looked for -> what was seen, in words; also where nothing was found.
        name: str, the model's name.
    """

    def __init__(self, findings: Any, looked_at: Any = None, name: str = "model") -> None:
        self.findings: list[Finding] = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
        self.looked_at, self.name = dict(looked_at or {}), name

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, index: Any) -> Any:
        return self.findings[index]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    @property
    def headline(self) -> str:
        """One sentence."""
        if not self.findings:
            return f"No finding: nothing is wrong with '{self.name}' on this batch, as far as {len(self.looked_at)} looks tell."
        count = len(self.findings)
        return f"{count} finding{'s' if count > 1 else ''} about '{self.name}', worst first."

    def __str__(self) -> str:
        parts = [self.headline, *map(str, self.findings)]
        seen = "\n".join(f"  {name}: {what}" for name, what in self.looked_at.items())
        return "\n\n".join([*parts, f"Looked at\n{seen}"] if seen else parts)

    __repr__ = __str__

    def to_markdown(self) -> str:
        """The findings as Markdown."""
        lines = [f"**{_markdown(self.headline)}**", ""]
        for finding in self.findings:
            where = f" (`{finding.path}`)" if finding.path else ""
            lines += [f"* **{finding.severity}: {_markdown(finding.title)}**{where}"]
            lines += [f"  * evidence: {_markdown(finding.evidence)}", f"  * remedy: {_markdown(finding.remedy)}"]
        if self.looked_at:
            lines += ["", "| looked at | seen |", "|---|---|"]
            lines += [f"| {_markdown(name)} | {_markdown(what)} |" for name, what in self.looked_at.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><b>{finding.severity}</b></td><td><b>{_html(finding.title)}</b><br><code>{_html(finding.path)}</code></td>"
            f"<td>{_html(finding.evidence)}</td><td>{_html(finding.remedy)}</td></tr>"
            for finding in self.findings
        )
        head = "<tr><th>severity</th><th>finding</th><th>evidence</th><th>remedy</th></tr>"
        table = f"<table style='text-align:left'>{head}{rows}</table>" if rows else ""
        seen = "".join(f"<li>{_html(name)}: {_html(what)}</li>" for name, what in self.looked_at.items())
        return (
            f"<p><b>{_html(self.headline)}</b></p>{table}<details><summary>looked at</summary><ul>{seen}</ul></details>"
        )


def _markdown(text):
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def _html(text):
    return html.escape(str(text))
