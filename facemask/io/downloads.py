"""Download an image that is named by a URL, bounded in size and time."""

import re
import time
from urllib.parse import unquote, urlsplit

from facemask.errors import InputError

SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
MAX_DOWNLOAD = 100 << 20  # bytes
TIMEOUT, MAX_SECONDS = 10.0, 60.0  # s, for each answer of the server, and for the whole image
CHUNK = 1 << 16  # bytes
REMEDY = "download it another way, and give the file"


def is_url(source: str) -> bool:
    """Return whether a source is a URL. Raises InputError if it is one of another kind than http and https."""
    if not (scheme := SCHEME.match(source)):
        return False
    if scheme[0].lower() not in ("http://", "https://"):
        raise InputError(f"{without_password(source)}: only http and https images are downloaded; {REMEDY}")
    return True


def without_password(url: str) -> str:
    """Return a URL as messages and records may name it: without user and password."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def file_name(url: str) -> str:
    """Return the name of the file that a URL ends in, "image" if there is none."""
    return unquote(urlsplit(url).path).replace("\\", "/").rpartition("/")[2].replace("\0", "") or "image"


def download(url: str) -> bytes:
    """Return the content of a URL. Raises InputError if it cannot be had, is larger than MAX_DOWNLOAD or takes too long."""
    from http.client import HTTPException  # here, as most runs need none of these

    name = without_password(url)
    try:
        return _download(url, name)
    except (OSError, HTTPException, ValueError) as error:
        getattr(error, "close", lambda: None)()  # urllib's HTTPError holds the connection
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise InputError(f"{name}: cannot be downloaded ({reason}); check the address, or {REMEDY}") from error


def _download(url: str, name: str) -> bytes:
    from base64 import b64encode
    from urllib import request

    opener = request.OpenerDirector()  # without the handlers of files, FTP and data, to which a server might redirect
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    query = request.Request(name.partition("#")[0], headers={"User-Agent": "facemask-detector"})
    parts = urlsplit(url)
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        query.add_unredirected_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
    deadline, data = time.monotonic() + MAX_SECONDS, bytearray()
    with opener.open(query, timeout=TIMEOUT) as response:
        while chunk := response.read1(CHUNK):
            data += chunk
            if len(data) > MAX_DOWNLOAD:
                raise InputError(f"{name}: more than {MAX_DOWNLOAD >> 20} MB; {REMEDY}")
            if time.monotonic() > deadline:
                raise InputError(f"{name}: takes more than {MAX_SECONDS:.0f} s; {REMEDY}")
        if (missing := response.length) and missing > 0:
            raise InputError(f"{name}: ended {missing} bytes too early; try again, or {REMEDY}")
    return bytes(data)
