"""Servers on this machine that send a file as cameras and recorders send their streams."""

import socketserver
import struct
import threading
import time
from contextlib import AbstractContextManager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RTP_PAYLOAD = 7 * 188  # bytes: packets of a transport stream
MPEG_TS = 33  # its type in RTP (RFC 3551)
RTP_CLOCK = 90_000  # Hz


class StreamServer(AbstractContextManager):
    """Serves one file to each who asks; `url` is where."""

    def __init__(self, server: socketserver.BaseServer, scheme: str, path: str) -> None:
        self._server = server
        self.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/{path}"

    def __enter__(self) -> "StreamServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def serve_http(path: Path) -> StreamServer:
    """Serve a file as web servers do: whole, or from a place on."""
    data = path.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            with suppress(OSError):  # the reader has gone
                self.wfile.write(data[start:])

        def log_message(self, *_: object) -> None:
            pass

    return StreamServer(ThreadingHTTPServer(("127.0.0.1", 0), Handler), "http", path.name)


def serve_rtsp(path: Path, seconds: float) -> StreamServer:
    """Serve a transport stream by RTSP, within its TCP connection, over so many seconds; then the connection is closed."""
    data = path.read_bytes()
    chunks = [data[start : start + RTP_PAYLOAD] for start in range(0, len(data), RTP_PAYLOAD)]
    description = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP {MPEG_TS}\r\na=control:*\r\n"
    answers = {
        "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n",
        "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(description)}\r\n\r\n{description}",
        "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
        "PLAY": "Session: 1\r\n\r\n",
    }

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the reader has gone
                while method := self._answer():
                    if method == "PLAY":
                        self._send()
                        return

        def _answer(self) -> str:
            """Answer one request; return its method, "" at the end."""
            lines = []
            while (line := self.rfile.readline().decode().strip()) or not lines:
                if not line:
                    return ""
                lines.append(line)
            method = lines[0].split()[0]
            (number,) = [line for line in lines if line.lower().startswith("cseq")]
            self.wfile.write(f"RTSP/1.0 200 OK\r\n{number}\r\n{answers.get(method, chr(13) + chr(10))}".encode())
            return method

        def _send(self) -> None:
            start = time.monotonic()
            for number, chunk in enumerate(chunks):
                after = number / len(chunks) * seconds
                time.sleep(max(start + after - time.monotonic(), 0))
                header = struct.pack(">BBHII", 0x80, MPEG_TS, number, round(after * RTP_CLOCK), 1)
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(header) + len(chunk)) + header + chunk)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    return StreamServer(Server(("127.0.0.1", 0), Handler), "rtsp", "stream")
