"""Take the picture of the pad for the documentation: ``python -m tests.pad.screenshot``.

Not a test: run it when the appearance of the page has changed, and check the result.
"""

from __future__ import annotations

import sys

from tests.pad.browser import running_browser
from tests.processes import Process, environment, running_agent, running_relay
from tests.tools import ROOT

PICTURE = ROOT / "docs" / "images" / "pad.png"

# The editor continues a list by itself and ends it at an empty line.
ADA = """# Picnic at the lighthouse

We meet at the harbour on **Saturday at 10:30**. The ferry leaves at eleven, and the path up takes half an hour with the little ones.

## To bring

- bread and the good cheese
two thermos flasks, *one with cocoa*
blankets


"""  # noqa: E501  # one line of text
BEN = "Rain plan: the boathouse. I have asked for the key."

HUES = {"Mira": 7, "Ada": 0, "Ben": 3}


def main() -> None:
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    server = Process([sys.executable, "-m", "tests.yserver.program"], name="server", env=environment())
    with server, running_relay("--pad") as relay, running_browser() as browser:
        port = int(server.when_line(r"serving documents on port (\d+)")[1])
        link = f"http://localhost:{relay.port}/c/lighthouse"
        with running_agent(relay, "lighthouse", local_port=port):
            for name, hue in HUES.items():
                browser.open_live(name, link, deviceScaleFactor=2, viewport={"width": 1000, "height": 640})
                browser.ask("evaluate", who=name, expression=f"localStorage.setItem('seance.hue', {hue})")
                browser.ask("reload", who=name)
                browser.ask("when_state", who=name, state="live")
            browser.ask("type", who="Ada", text=ADA)
            text = browser.ask("text", who="Ada")
            browser.ask("when_text", who="Ben", text=text)
            browser.ask("focus", who="Ben")
            browser.ask("press", who="Ben", keys=["Control+End"])
            browser.ask("type", who="Ben", text=BEN)
            browser.ask("focus", who="Ada")
            to_the_cheese = ["ArrowUp"] * 4 + ["End"] + ["ArrowLeft"] * 15 + ["Shift+ArrowRight"] * 15
            browser.ask("press", who="Ada", keys=to_the_cheese)
            browser.ask("press", who="Ben", keys=["Home", "End"])
            browser.ask("when_text", who="Mira", text=browser.ask("text", who="Ben"))
            browser.ask("when_caret", who="Mira", name="Ada")
            browser.ask("when_caret", who="Mira", name="Ben")
            browser.ask("evaluate", who="Mira", expression="document.activeElement.blur()")
            browser.ask("evaluate", who="Mira", expression="new Promise(done => setTimeout(done, 400))")
            browser.ask("screenshot", who="Mira", path=str(PICTURE))
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
