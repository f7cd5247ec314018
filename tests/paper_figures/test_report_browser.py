"""The report in a real browser: on a phone and on a desk, light, dark and printed.

Chromium is spoken to over its DevTools pipe. What is asked of a page is `LOOK` and what the browser
itself complains of; damaged pages, one for each question, must be found out.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH"),
]

VIEWS = {
    "phone, light": (390, "screen", "light"),
    "phone, dark": (390, "screen", "dark"),
    "desk, light": (1280, "screen", "light"),
    "desk, dark": (1280, "screen", "dark"),
    "A4 with margins of 1 cm": (718, "print", "light"),
    "printed from a dark screen": (718, "print", "dark"),
}
"""Width in CSS pixels, medium, and the colours that a reader prefers."""

LOOK = r"""
(async width => {
  const found = [];
  const ask = (fine, words, element) => {
    if (!fine) found.push(`${words}: ${element.outerHTML.slice(0, 120)}`);
  };
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
  for (const image of document.images) {
    ask(image.complete && image.naturalWidth > 0, "image not decoded", image);
    ask(image.alt, "image without words", image);
  }
  for (const link of document.querySelectorAll('a[href^="#"]'))
    ask(document.getElementById(link.getAttribute("href").slice(1)), "link to nothing", link);

  const page = document.documentElement;
  ask(page.scrollWidth <= width, `page ${page.scrollWidth} px wide`, page);
  const scrolls = element => element && getComputedStyle(element).overflowX === "auto";
  const numbers = colour => colour.match(/[\d.]+/g).map(Number);
  const luminance = colour => numbers(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    if (!element) return "rgb(255, 255, 255)";
    const colour = getComputedStyle(element).backgroundColor;
    return numbers(colour)[3] === 0 ? ground(element.parentElement) : colour;
  };
  for (const element of document.body.querySelectorAll("*")) {
    if (!element.checkVisibility()) continue;
    const scrolled = element.parentElement.closest(".scroll");
    ask(scrolls(scrolled) || element.getBoundingClientRect().right <= width + 0.5,
        "wider than the window", element);
    if ([...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) {
      const [a, b] = [getComputedStyle(element).color, ground(element)].map(luminance);
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      ask(contrast >= 4.5, `contrast ${contrast.toFixed(1)}`, element);
    }
  }
  const marks = {consistent: "✓", inconsistent: "✗", inconclusive: "?", "not run": "–"};
  const verdicts = [...document.querySelectorAll(".verdict")];
  ask(verdicts.length, "no verdict", document.body);
  for (const verdict of verdicts) {
    const words = verdict.innerText.trim();
    ask(Object.entries(marks).some(([word, mark]) => words === `${mark} ${word}`),
        "verdict without its mark or word", verdict);
  }
  return found;
})
"""

MAIN = "from experiments.cli import main; main()"

COMPLAINTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")


class Browser:
    """Chromium without a window, one page open."""

    def __init__(self, profile):
        ours, theirs = os.pipe(), os.pipe()
        read, write = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (ours[0], theirs[1]))
        self.requests, self.answers, self.heard = os.fdopen(ours[1], "wb"), theirs[0], b""
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        self.process = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, read, 3),
                (os.POSIX_SPAWN_DUP2, write, 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        for fd in (read, write, ours[0], theirs[1]):
            os.close(fd)
        self.asked, self.session, self.events = 0, {}, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        self.asked += 1
        request = {"id": self.asked, "method": method, "params": params, **self.session}
        self.requests.write(json.dumps(request).encode() + b"\0")
        self.requests.flush()
        answer = self._hear()
        while answer.get("id") != self.asked:
            answer = self._hear()
        assert "error" not in answer, answer
        return answer["result"]

    def problems(self, page, width, medium="screen", colours="light"):
        """What is wrong with a page at a width: sentences."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=844, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.ask("Emulation.setScrollbarsHidden", hidden=True)  # they would take of the width
        preferred = [{"name": "prefers-color-scheme", "value": colours}]
        self.ask("Emulation.setEmulatedMedia", media=medium, features=preferred)
        self._open("about:blank")
        self._open(page.as_uri())
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.ask("Runtime.evaluate", expression=f"{LOOK}({width})", **options)
        assert "exceptionDetails" not in answer, answer
        return [*answer["result"]["value"], *self._complaints(page)]

    def _complaints(self, page):
        for event in self.events:
            if event["method"] in COMPLAINTS:
                yield f"complaint: {event['params']}"
            if event["method"] == "Network.requestWillBeSent":
                address = event["params"]["request"]["url"]
                if address != page.as_uri() and not address.startswith("data:"):
                    yield f"request of {address}"

    def _open(self, address):
        self.events.clear()
        self.ask("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._hear()

    def _hear(self):
        """The next message; events are kept."""
        while b"\0" not in self.heard:
            piece = os.read(self.answers, 1 << 20)
            if not piece:
                raise EOFError("Chromium ended.")
            self.heard += piece
        text, _, self.heard = self.heard.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def close(self):
        self.session = {}
        self.ask("Browser.close")
        os.waitpid(self.process, 0)
        self.requests.close()
        os.close(self.answers)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a small store: a study, two claims checked on it and by algebra."""
    out = tmp_path_factory.mktemp("results")
    for words in (
        "run topk-exact --profile smoke",
        "verify topk-exact --profile smoke",
        "verify rbar",
        "report",
    ):
        command = [sys.executable, "-c", MAIN, *words.split(), "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    return out / "report.html"


@pytest.mark.parametrize("view", VIEWS)
def test_report_is_whole_in_a_browser(view, browser, page):
    assert browser.problems(page, *VIEWS[view]) == []


DAMAGE = {
    "wider than the window": '<div style="width: 2000px">wide</div>',
    "page 2": '<div style="width: 2000px">wide</div>',
    "image not decoded": '<img src="data:image/png;base64,AAAA" alt="broken">',
    "image without words": '<img src="data:image/svg+xml,%3Csvg/%3E">',
    "link to nothing": '<a href="#nowhere">there</a>',
    "contrast 1.": '<p style="color: #ddd; background: #fff">pale</p>',
    "verdict without": '<span class="verdict consistent">yes</span>',
    "complaint": '<script>console.error("no")</script>',
    "request of": '<img src="other.png" alt="beside the page">',
}
"""What must be said of a page, and what is put into it."""


@pytest.mark.parametrize("said", DAMAGE)
def test_a_damaged_report_is_found_out(said, browser, page, tmp_path):
    damaged = tmp_path / "damaged.html"
    text = page.read_text(encoding="utf-8")
    damaged.write_text(text.replace("</main>", f"{DAMAGE[said]}</main>"), encoding="utf-8")
    problems = browser.problems(damaged, 390)
    assert any(problem.startswith(said) for problem in problems), problems
