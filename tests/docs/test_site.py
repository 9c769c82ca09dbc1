"""The built site: mathematics is typeset, no page cuts its code, and nothing comes from elsewhere.

Run after a build: `IGR_SITE=site python -m pytest -m slow tests/docs/test_site.py`; without
`IGR_SITE` the site is built here, tutorials not executed.
"""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if "IGR_SITE" in os.environ:
        return Path(os.environ["IGR_SITE"]).resolve()
    pytest.importorskip("mkdocs", reason="the site is built by the docs extra")
    built = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", built],
        cwd=ROOT,
        env=dict(os.environ, IGR_DOCS_EXECUTE="false", NO_MKDOCS_2_WARNING="1"),
        check=True,
    )
    return built


def pages(site):
    found = sorted(site.rglob("index.html"))
    assert len(found) > 10
    return found


class Resources(HTMLParser):
    """What a page loads by itself, what it links to, and its pictures without a text."""

    def __init__(self):
        super().__init__()
        self.loaded, self.mute, self.ids, self.links = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "id" in given:
            self.ids.add(given["id"])
        if tag in ("script", "img", "iframe") and given.get("src"):
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon") and given.get("href"):
            self.loaded.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.mute.append(given.get("src", "")[:80])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])


def parsed(page):
    resources = Resources()
    resources.feed(page.read_text(encoding="utf-8"))
    return resources


def test_pages_load_nothing_from_elsewhere_and_nothing_that_is_not_there(site):
    for page in pages(site):
        for target in parsed(page).loaded:
            if target.startswith("data:"):
                continue
            assert not re.match(r"(https?:)?//", target), (page, target)
            path = target.split("?")[0].split("#")[0]
            where = site / path.lstrip("/") if path.startswith("/") else page.parent / path
            assert where.exists(), (page, target)


@pytest.mark.skipif("IGR_REPOSITORY" not in os.environ, reason="its address is not known here")
def test_every_page_links_to_the_repository(site):
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert pages
    assert all(f'href="{os.environ["IGR_REPOSITORY"]}"' in page.read_text() for page in pages)


def test_every_picture_has_a_text(site):
    without = {str(p): m for p in pages(site) if (m := parsed(p).mute)}
    assert not without


def test_no_page_shows_how_far_a_bar_of_progress_was(site):
    assert not [page for page in pages(site) if re.search(r"\d%\|", page.read_text("utf-8"))]


def test_no_link_is_broken(site):
    read = {page: parsed(page) for page in pages(site)}
    for page, resources in read.items():
        for link in resources.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), (page, link)
            if anchor and target.suffix == ".html" and target in read:
                assert anchor in read[target].ids, (page, link)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    failed: list[str] = []  # noqa: RUF012 (shared by all requests of one server, on purpose)

    def log_message(self, *args):
        pass

    def send_error(self, code, *args, **kwargs):
        self.failed.append(f"{code} {self.path}")
        super().send_error(code, *args, **kwargs)


@pytest.fixture(scope="module")
def server(site):
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def rendered(url, profile):
    """The page as a browser shows it, after its scripts have run."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --virtual-time-budget=20000"
    )
    done = subprocess.run(
        [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


class Prose(HTMLParser):
    """The text of an article, without its code and its typeset mathematics."""

    SILENT = ("pre", "code", "script", "style", "mjx-container", "nav")

    def __init__(self):
        super().__init__()
        self.depth, self.inside, self.text, self.typeset = 0, 0, [], 0

    def handle_starttag(self, tag, attrs):
        if tag == "article":
            self.inside += 1
        if tag == "mjx-container":
            self.typeset += 1
        if tag in self.SILENT:
            self.depth += 1

    def handle_endtag(self, tag):
        if tag == "article":
            self.inside -= 1
        if tag in self.SILENT:
            self.depth -= 1

    def handle_data(self, data):
        if self.inside and not self.depth:
            self.text.append(data)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_finds_no_raw_formula_and_no_failed_request(site, server, tmp_path):
    mathematical = [
        "concepts",
        *(f"tutorials/{p.name}" for p in (site / "tutorials").iterdir() if p.is_dir()),
    ]
    for place in mathematical:
        prose = Prose()
        prose.feed(rendered(f"{server}/{place}/", tmp_path / "profile"))
        text = "".join(prose.text)
        assert len(text) > 500, place
        assert not re.search(r"\$|\\\(|\\\[", text), place
        if place == "concepts":
            assert prose.typeset > 40
    assert not _Quiet.failed


# Opens every page in a frame as wide as a telephone, and notes those that are wider than it.
FRAMES = """<!doctype html><iframe width="400" height="800"></iframe><pre id="wide"></pre><script>
const pages = PAGES, frame = document.querySelector("iframe");
const done = () => document.getElementById("wide").append("; done " + pages.length);
const open = i => { if (i == pages.length) { done(); return; }
  frame.onload = () => { const inside = frame.contentDocument.documentElement;
    if (inside.scrollWidth > 400) document.getElementById("wide").append(
      pages[i] + " " + inside.scrollWidth + ", ");
    open(i + 1); };
  frame.src = pages[i]; };
open(0);</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_no_page_scrolls_sideways_on_a_telephone(site, server, tmp_path):
    places = ["/" + str(page.parent.relative_to(site)).strip(".") for page in pages(site)]
    known = site / "wide-for-a-test.html"  # that the frames do find what is too wide
    addresses = [*(place.rstrip("/") + "/" for place in places), f"/{known.name}"]
    frames = site / "frames-for-a-test.html"
    known.write_text('<!doctype html><div style="width: 900px">-</div>', encoding="utf-8")
    frames.write_text(FRAMES.replace("PAGES", json.dumps(addresses)), encoding="utf-8")
    try:
        shown = rendered(f"{server}/{frames.name}", tmp_path / "profile")
    finally:
        frames.unlink()
        known.unlink()
    [found] = re.findall(r'<pre id="wide">(.*?)</pre>', shown, flags=re.DOTALL)
    assert re.fullmatch(rf"/{known.name} 9\d\d, ; done {len(addresses)}", found), found
