"""One self-contained page that is no report of maps: a title, a sentence, and whatever a finding has to show."""

import base64
import hashlib
from importlib.resources import files

from PIL import Image

from pellucid.core.version import VERSION
from pellucid.render.notebook import data_uri, escape

_EXTRA_STYLE = """
.leaf img { max-width: 100%; height: auto; border-radius: 4px; }
.leaf section { margin-top: 24px; }
"""


def leaf(title: str, lead: str, body: str, *, style: str = "", script: str = "") -> str:
    """The whole page as text; nothing is loaded from anywhere, and its security policy forbids it.

    Args:
        title, lead: plain text.
        body: HTML that is safe already; texts in it went through `escape`.
        style, script: added to the page's own; the policy lets these run and no others.
    """
    css = files("pellucid.render").joinpath("report.css").read_text(encoding="utf-8") + _EXTRA_STYLE + style
    policy = f"default-src 'none'; img-src data:; style-src '{allowed(css)}'; base-uri 'none'; form-action 'none'"
    policy += f"; script-src '{allowed(script)}'" if script else ""
    run = f"<script>{script}</script>" if script else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="pellucid">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{css}</style>
</head>
<body>
<header><h1>{escape(title)}</h1></header>
<main class="leaf">
<p class="lead">{escape(lead)}</p>
{body}
</main>
<footer><p class="quiet">Made with pellucid {VERSION}.</p></footer>
{run}
</body>
</html>
"""


def picture_html(picture: Image.Image, alt: str) -> str:
    """A picture inside a page, with words for those who can't see it."""
    return f'<figure><img src="{data_uri(picture)}" alt="{escape(alt)}"></figure>'


def allowed(text: str) -> str:
    """What a page's security policy says to let one style or script run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
