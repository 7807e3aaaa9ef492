"""The pictures of docs/watching.md: `python docs/generate_watching.py` needs Matplotlib and Chromium."""

import base64
import pathlib
import runpy
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.watch.browser import Browser  # noqa: E402

IMAGES = ROOT / "docs" / "images"


def main():
    example = runpy.run_path(str(ROOT / "examples" / "watch_gradients.py"))
    for what in ("flow", "gain"):
        example["monitors"]["sigmoid"].plot(IMAGES / f"watching-{what}.png", what)
    report = example["directory"] / "sigmoid.html"
    with tempfile.TemporaryDirectory() as profile, Browser(profile) as page:
        for name, width, height, features, media in (
            ("report", 1000, 1500, [], ""),
            ("report-narrow", 390, 1500, [], ""),
            ("report-dark", 1000, 1500, [{"name": "prefers-color-scheme", "value": "dark"}], ""),
            ("report-print", 794, 1500, [], "print"),
        ):
            page.ask("Emulation.setEmulatedMedia", media=media, features=features)
            page.open(report)
            (IMAGES / f"watching-{name}.png").write_bytes(base64.b64decode(page.screenshot(width, height)))


if __name__ == "__main__":
    main()
