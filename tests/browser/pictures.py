"""Makes the README's pictures from the real widget in a real JupyterLab: `python tests/browser/pictures.py`.

Flights are edited, pushed by a colleague too, and what is queued and what is in conflict is photographed: of one
conflict a side is chosen in one column, and the result of another is typed.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from lab import FLAGS, Lab, chromium, opened
from playwright.sync_api import Locator, sync_playwright

FOLDER = Path(__file__).parents[2] / "notebooks" / "pictures"
CELLS = [
    """
import pandas as pd
import syncframe as sf
from syncframe import demo
url = demo.service(small=30_000)
ctx = sf.connect(url, store="field.duckdb")
flights = ctx["flights"]
flights.pull("month = 1", query_id="january")
colleague = sf.connect(url, store="colleague.duckdb")["flights"]
colleague.pull("month = 1", query_id="january")
""",
    """
df = flights.frame()
df.loc[df["dep_time"].isna(), "note"] = "cancelled"
df.loc[["UA-1545-EWR-2013010110", "DL-461-LGA-2013010111"], "note"] = ["crew late", "wrong gate"]
df.loc["UA-1545-EWR-2013010110", ["dep_delay", "tailnum"]] = [4, "N24211"]
df.loc["AA-1141-JFK-2013010110", "note"] = "diverted"
flights.stage(df.drop("B6-725-JFK-2013010110"))
colleague.update("UA-1545-EWR-2013010110", note="gate changed", dep_delay=6, arr_delay=12)
colleague.update("DL-461-LGA-2013010111", note="fog", dep_delay=-4)
colleague.update("B6-725-JFK-2013010110", note="de-icing")
colleague.delete("AA-1141-JFK-2013010110")
sf.connect(url, store="colleague.duckdb").push()
""",
    "ctx.push()",
    """
df = flights.frame()
df.loc["B6-507-EWR-2013010111", ["dep_delay", "note"]] = [12, "de-icing"]
df.loc["UA-1714-LGA-2013010110", ["dest", "note"]] = ["", "diverted"]
df.loc["B6-9001-JFK-2013010112"] = df.loc["B6-507-EWR-2013010111"]
flights.stage(df.drop(["EV-5708-LGA-2013010111", "B6-79-JFK-2013010111"]))
df = flights.frame()
df.loc[df["dep_delay"] > 300, "note"] = "look at this"
flights.stage(df)
ctx
""",
]


def photograph(widget: Locator, name: str) -> None:
    widget.scroll_into_view_if_needed()
    widget.page.wait_for_timeout(400)
    widget.screenshot(path=FOLDER / name)


def decide(widget: Locator) -> None:
    """Choose theirs in one column of the first conflict, and type the result of another."""
    widget.locator(".sf-row:visible", has_text="UA-1545-EWR-2013010110").first.click()
    delay = widget.get_by_role("row").filter(has=widget.page.get_by_role("rowheader", name=re.compile("^dep_delay")))
    delay.get_by_role("cell").nth(2).click(position={"x": 3, "y": 3})
    widget.get_by_role("button", name="Edit note", exact=True).click()
    widget.get_by_label("New value of note").fill("crew late, gate changed")
    widget.get_by_label("New value of note").press("Enter")
    widget.locator(".sf-edited").first.wait_for()


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = chromium() or sys.exit("no Chromium here")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        lab = Lab(Path(folder))
        try:
            with opened(lab, browser, "pictures.ipynb", CELLS) as page:
                for at in range(4):
                    page.run(at)
                widget = page.outputs(3).locator(".syncframe").first
                widget.locator(".sf-row").first.wait_for()
                widget.get_by_role("tab", name="Conflicts").click()
                decide(widget)
                for theme in ("JupyterLab Light", "JupyterLab Dark"):
                    page.theme(theme)
                    shade = theme.split()[-1].lower()
                    widget.get_by_role("tab", name="Pending").click()
                    photograph(widget, f"pending-{shade}.png")
                    widget.get_by_role("tab", name="Conflicts").click()
                    photograph(widget, f"conflicts-{shade}.png")
        finally:
            lab.close()
            browser.close()


if __name__ == "__main__":
    main()
