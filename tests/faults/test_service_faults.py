"""The table "Page, notifications and MQTT" of docs/errors.md, row by row."""

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import detect_mask_video
from facemask import __main__ as facemask_commands
from tests.faults.fault_table import ASTRONAUT, FaultTable, Run, write
from tests.helpers import ROOT

TABLE = FaultTable("Page, notifications and MQTT")
CERTIFICATE, KEY = ((ROOT / "tests" / "serving" / name).read_bytes() for name in ("tls_cert.pem", "tls_key.pem"))


def run(*arguments: str) -> Run:
    return Run(["-i", str(ASTRONAUT), "--no-show", *arguments], detect_mask_video.main)


@TABLE.case("a port on which another run listens")
def port_taken(folder):
    server = socket.create_server(("127.0.0.1", 8471))
    return replace(run("--serve", "8471"), after=server.close)


@TABLE.case("an option of the page without --serve")
def without_page(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["detect_mask_video.py"])
    return run("--password", "x")


@TABLE.case("`python -m facemask app` with a key alone")
def key_alone(folder):
    return Run(["app", "--tls-key", "key.pem"], facemask_commands.main)


@TABLE.case("`python -m facemask app` on a port on which another run listens")
def port_of_the_app_taken(folder):
    server = socket.create_server(("127.0.0.1", 8472))
    return Run(["app", "--port", "8472"], facemask_commands.main, after=server.close)


@TABLE.case("an empty password")
def empty_password(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["detect_mask_video.py"])
    return run("--serve", "0", "--password", "")


@TABLE.case("a missing certificate or key")
def no_certificate(folder):
    return run("--serve", "0", "--tls-cert", "cert.pem")


@TABLE.case("a file that is not a certificate")
def not_a_certificate(folder):
    write("cert.pem", b"text")
    write("key.pem", KEY)
    return run("--serve", "0", "--tls-cert", "cert.pem", "--tls-key", "key.pem")


@TABLE.case("a notification's URL that apprise does not know; its secrets are not shown")
def unknown_url(folder):
    pytest.importorskip("apprise")
    return run("--notify", "nowhere://secret")


@TABLE.case("a broker without a topic; the password is not shown")
def no_topic(folder):
    return run("--mqtt", "me:secret@desk")


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path: Path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)


def test_table_is_complete():
    TABLE.check_complete()
