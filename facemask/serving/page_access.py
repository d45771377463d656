"""Who may see the live page: a password with limited tries, and encryption."""

import base64
import hashlib
import hmac
import secrets
import ssl
import threading
import time
from collections import deque
from email.message import Message
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from facemask.errors import InputError

TRIES, TRIES_OF_ALL = 5, 60  # wrong passwords from one address, and from all, within TRIES_PERIOD
TRIES_PERIOD = 60.0  # s
PASSWORD_BYTES = 12  # of chance in a password that is made


def make_password() -> str:
    """Return a password that nobody can guess, of 16 letters, digits, - and _."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


class Access:
    """Lets a browser in that has the password, or the cookie that it got for it.

    The cookie is valid until this run ends. Whoever gave wrong passwords too often must wait; those who are in stay in.
    """

    def __init__(self, password: str) -> None:
        self._password = password
        self._session = secrets.token_urlsafe(32)
        self._failures: deque[tuple[float, str]] = deque()  # times and addresses
        self._lock = threading.Lock()

    def cookie(self, name: str, is_secure: bool) -> str:
        """Return the value of Set-Cookie for a browser that gave the password."""
        # A browser does not send it with what other sites make it ask for, and scripts cannot read it.
        return f"{name}={self._session}; Path=/; HttpOnly; SameSite=Strict{'; Secure' if is_secure else ''}"

    def has_cookie(self, headers: Message, name: str) -> bool:
        """Return whether a request carries the cookie."""
        try:
            cookie = SimpleCookie(headers.get("Cookie", "")).get(name)
        except CookieError:
            return False
        return cookie is not None and _is_same(cookie.value, self._session)

    def check(self, password: str, address: str) -> bool | None:
        """Return whether a password is right; None if there were too many wrong ones, and this one was not checked."""
        with self._lock:
            now = time.monotonic()
            while self._failures and self._failures[0][0] < now - TRIES_PERIOD:
                self._failures.popleft()
            if len(self._failures) >= TRIES_OF_ALL or sum(other == address for _, other in self._failures) >= TRIES:
                return None
            if _is_same(password, self._password):
                return True
            self._failures.append((now, address))
            return False


def basic_password(headers: Message) -> str | None:
    """Return the password of HTTP Basic in a request, whatever the user name; None if there is none."""
    kind, _, value = headers.get("Authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except ValueError:  # not base64, or not UTF-8
        return ""


def _is_same(text: str, secret: str) -> bool:
    """Compare in a time that tells nothing of where they differ, nor of the secret's length."""
    digests = [hashlib.sha256(each.encode(errors="surrogateescape")).digest() for each in (text, secret)]
    return hmac.compare_digest(*digests)


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return what a server needs for TLS; `key` is None if it is in the certificate's file.

    Raises InputError if a file cannot be used.
    """
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise InputError(f"{option} {path}: cannot be read ({error.strerror}); check the name and your rights") from error

    def no_passphrase() -> str:  # otherwise OpenSSL asks for it on the terminal, and waits
        raise InputError(f"--tls-key {key or certificate}: is encrypted; write it without: openssl pkey -in OLD.pem -out NEW.pem")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InputError(f"--tls-key {key}: is not the key of {certificate}; give the two that belong together") from error
        files = f"{certificate} and {key}" if key else f"{certificate}"
        what = "a certificate and its key in PEM format" if key else "a certificate in PEM format, its key in the same file"
        raise InputError(f"--tls-cert: {files}: not {what}; give --tls-cert CERT.pem --tls-key KEY.pem") from error
    return context
