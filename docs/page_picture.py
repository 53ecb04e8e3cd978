"""Draw the picture of the page that a server shows: ``python docs/page_picture.py [RUN] [--problem ID]``.

It is the page itself in headless Chromium, in light and in dark, with a stored solve; nothing in it is staged.
"""

from __future__ import annotations

import argparse
import json
import shutil
from base64 import b64encode
from pathlib import Path

from playwright.sync_api import Browser, Route, sync_playwright

from specreason_sgl.runs.store import SolveRecord, read_run
from specreason_sgl.view import page
from specreason_sgl.view.page import LivePage

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "pictures" / "page.png"
SERVER = "http://127.0.0.1"
WIDTH, HEIGHT = 400, 720


def answers(record: SolveRecord) -> dict[str, tuple[str, str]]:
    """What a server would send, by path: the page, and the stored solve as it would come in."""
    live = LivePage()
    parts = [part for event in record.events for part in live.add(event)]
    stream = "".join(f"event: part\ndata: {json.dumps(part)}\n\n" for part in parts) + "event: closed\ndata: {}\n\n"
    return {
        "/": (page.DOCUMENT, "text/html"),
        "/page.js": (page.SCRIPT, "text/javascript"),
        "/page.css": (page.STYLE, "text/css"),
        "/v1/models": (json.dumps({"data": [{"id": record.mode}]}), "application/json"),
        "/v1/solves?render=html": (stream, "text/event-stream"),
    }


def shot(browser: Browser, record: SolveRecord, scheme: str) -> bytes:
    """The page with the whole solve."""
    tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)  # type: ignore[arg-type]
    known = answers(record)

    def answer(route: Route) -> None:
        body, kind = known[route.request.url.removeprefix(SERVER)]
        headers = {"Content-Security-Policy": page.POLICY}
        route.fulfill(body=body, content_type=f"{kind}; charset=utf-8", headers=headers)

    tab.route(f"{SERVER}/**", answer)
    tab.goto(f"{SERVER}/")
    tab.click("text=Open")
    tab.fill("#question", record.problem.question)
    tab.click("text=Solve")
    tab.wait_for_selector("#end strong")
    return tab.screenshot()


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=ROOT / "specreason_sgl" / "runs" / "example")
    parser.add_argument("--problem", help="the problem to show [the first]")
    asked = parser.parse_args()
    record = next(each for each in read_run(asked.run).records if asked.problem in {None, each.problem.id})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shots = [b64encode(shot(browser, record, scheme)).decode() for scheme in ("light", "dark")]
        both = browser.new_page(viewport={"width": 2 * WIDTH, "height": HEIGHT})
        images = "".join(f'<img src="data:image/png;base64,{each}" width="{WIDTH}">' for each in shots)
        both.set_content(f'<body style="margin:0;display:flex">{images}</body>')
        both.screenshot(path=PICTURE)


if __name__ == "__main__":
    main()
