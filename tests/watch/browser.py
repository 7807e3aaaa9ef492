"""A headless Chromium, spoken to through a pipe: the DevTools protocol, without a library."""

import json
import os
import select
import shutil
import subprocess
import time

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
MISSING = "needs a Chromium on the path: `apt-get install chromium`"


class Browser:
    """A page in a browser of its own. Use it in a `with` block.

    Attributes:
        messages: list of str, what the page has written to the console, errors and refusals of its policy included.
        requests: list of str, the addresses it has asked for.
    """

    def __init__(self, directory):
        self.messages, self.requests = [], []
        self._number, self._waiting, self._session = 0, b"", None
        (to_read, write_to), (read_from, to_write) = os.pipe(), os.pipe()
        command = [
            PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
            f"--user-data-dir={directory}", "about:blank",
        ]  # fmt: skip
        script = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._write, self._read = write_to, read_from

    def __enter__(self):
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *exception):
        self._process.terminate()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)

    def ask(self, method, **parameters):
        """Call a method of the protocol. Returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._until(lambda said: said.get("id") == self._number)["result"]

    def open(self, path):
        """Open a file and wait for it."""
        self.ask("Page.navigate", url=path.absolute().as_uri())
        self._until(lambda said: said.get("method") == "Page.loadEventFired")

    def value(self, expression):
        """The value of a JavaScript expression."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"]
        return result.get("value")

    def press(self, key, code):
        """Press a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, width, height):
        """A picture of the page: bytes of a PNG, in base64."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        return self.ask("Page.captureScreenshot", format="png")["data"]

    def _until(self, wanted, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            while b"\0" in self._waiting:
                line, _, self._waiting = self._waiting.partition(b"\0")
                said = json.loads(line)
                self._note(said)
                if wanted(said):
                    return said
            if time.monotonic() > deadline or not select.select([self._read], [], [], seconds)[0]:
                raise TimeoutError("the browser does not answer")
            self._waiting += os.read(self._read, 2**20)

    def _note(self, said):
        method, parameters = said.get("method"), said.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.messages.append(json.dumps(parameters)[:500])
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
