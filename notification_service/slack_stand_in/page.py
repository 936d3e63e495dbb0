"""The page that shows the messages, newest first."""

import html
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from notification_service.slack_stand_in.messages import Posted

SHOWN: Final = 200

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="2">
<title>Slack stand-in</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --mark: #611f69;
  --quiet: light-dark(#666, #999); }}
body {{ margin: 0 auto; max-width: 46rem; padding: 0 1rem 3rem;
  font: 15px/1.5 system-ui, sans-serif; }}
header {{ position: sticky; top: 0; padding: 1rem 0 .75rem; background: Canvas;
  border-bottom: 1px solid var(--line); }}
h1 {{ margin: 0; font-size: 1.15rem; }}
header p {{ margin: 0; color: var(--quiet); font-size: .85rem; }}
ol {{ list-style: none; margin: 0; padding: 0; }}
li {{ display: grid; grid-template-columns: 2.25rem 1fr; gap: .75rem; padding: .75rem 0;
  border-bottom: 1px solid var(--line); }}
.icon {{ width: 2.25rem; height: 2.25rem; border-radius: .4rem; background: var(--mark);
  color: #fff; display: grid; place-items: center; font-weight: 700; }}
.who {{ font-weight: 700; }}
.app {{ font-size: .65rem; font-weight: 600; padding: .05rem .3rem; border-radius: .2rem;
  background: var(--line); vertical-align: middle; }}
time, .channel, dl {{ color: var(--quiet); font-size: .8rem; }}
.text {{ margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }}
dl {{ margin: .15rem 0 0; display: flex; flex-wrap: wrap; gap: 0 1rem; }}
dl div {{ display: flex; gap: .35rem; }}
dd {{ margin: 0; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }}
.none {{ padding: 3rem 0; color: var(--quiet); text-align: center; }}
</style>
</head>
<body>
<header>
<h1>Slack stand-in</h1>
<p>{summary}</p>
</header>
{messages}
</body>
</html>
"""

_MESSAGE: Final = """<li>
<div class="icon" aria-hidden="true">N</div>
<div>
<span class="who">notifications</span> <span class="app">APP</span>
<time datetime="{iso}">{time}</time> <span class="channel">#{channel}</span>
<p class="text">{text}</p>
<dl>{details}</dl>
</div>
</li>"""


def render(newest_first: Iterable[Posted]) -> str:
    """Return the page as HTML; the messages are escaped."""
    shown = list(islice(newest_first, SHOWN))
    if not shown:
        return _PAGE.format(summary="No messages yet.", messages='<p class="none">Quiet here.</p>')
    items = "\n".join(_item(each) for each in shown)
    count = f"the newest {SHOWN}" if len(shown) == SHOWN else str(len(shown))
    summary = f"Messages: {count}. The page refreshes by itself."
    return _PAGE.format(summary=summary, messages=f"<ol>\n{items}\n</ol>")


def _item(posted: Posted) -> str:
    at = datetime.fromtimestamp(float(posted.ts), UTC)
    payload = (posted.metadata or {}).get("event_payload", {})
    details = "".join(
        f"<div><dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd></div>"
        for name, value in {"ts": posted.ts, **payload}.items()
    )
    return _MESSAGE.format(
        iso=at.isoformat(),
        time=f"{at:%H:%M:%S} UTC",
        channel=html.escape(posted.channel),
        # Slack gets the text with &, < and > escaped, and shows it unescaped.
        text=html.escape(html.unescape(posted.text)),
        details=details,
    )
