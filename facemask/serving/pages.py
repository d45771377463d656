"""The pages' files, and the policy that lets only their own scripts and styles run."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

SHARED = ("page.css", "page.js")
LOGIN_PAGE = Path(__file__).with_name("login.html").read_text(encoding="utf-8")


def load_page(path: Path) -> str:
    """Return a page, HTML, with what all pages share in the places that are marked so: `/* page.css */`, `/* page.js */`."""
    page = path.read_text(encoding="utf-8")
    for name in SHARED:
        page = page.replace(f"  /* {name} */\n", Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return page


def content_policy(page: str) -> str:
    """Return the Content-Security-Policy of a page, HTML, and the login form: their own scripts and styles, by hashes."""
    return (
        "default-src 'none'; img-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        f"frame-ancestors 'none'; style-src {_hashes('style', page)}; script-src {_hashes('script', page)}"
    )


def _hashes(element: str, page: str) -> str:
    contents = re.findall(f"<{element}>(.*?)</{element}>", page + LOGIN_PAGE, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" for content in contents)
