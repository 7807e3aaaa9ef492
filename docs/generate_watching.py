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

LOOKS = [("", 1000, False, ""), ("-narrow", 390, False, ""), ("-dark", 1000, True, ""), ("-print", 794, False, "print")]


def main():
    example = runpy.run_path(str(ROOT / "examples" / "watch_gradients.py"))
    for what in ("flow", "gain"):
        example["monitors"]["sigmoid"].plot(IMAGES / f"watching-{what}.png", what)
    with tempfile.TemporaryDirectory() as profile, Browser(profile) as page:
        for report, name in (("sigmoid", "report"), ("batch", "batch")):
            for look, width, dark, media in LOOKS:
                features = [{"name": "prefers-color-scheme", "value": "dark"}] if dark else []
                page.ask("Emulation.setEmulatedMedia", media=media, features=features)
                page.open(example["directory"] / f"{report}.html")
                picture = page.screenshot(width, 1200)
                (IMAGES / f"watching-{name}{look}.png").write_bytes(base64.b64decode(picture))


if __name__ == "__main__":
    main()
