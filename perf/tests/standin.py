#!/usr/bin/env python3
"""The smallest caching proxy that takes millrace's flags: stands in for it in the tests of `perf demo`.

Whole GETs are kept by target until a write; everything else passes. STANDIN=never-hit makes every read a miss,
STANDIN=wrong-byte spoils kept bodies, STANDIN=not-ready never gets ready, STANDIN=die ends at once.
"""

import argparse
import http.client
import http.server
import os
import sys
import threading

MODE = os.environ.get("STANDIN", "")
KEPT = {}


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    for flag in ("--listen", "--admin", "--origin", "--ram", "--cache-dir"):
        parser.add_argument(flag, required=True)
    return parser.parse_args()


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin = ""

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path in KEPT and "Range" not in self.headers:
            headers, body = KEPT[self.path]
            return self.answer(200, headers, body, "HIT")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection(self.origin)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            upstream.putheader(name, value)
        upstream.endheaders(body or None)
        response = upstream.getresponse()
        data = response.read()
        skip = ("content-length", "transfer-encoding", "connection")
        headers = [(n, v) for n, v in response.getheaders() if n.lower() not in skip]
        if self.command == "GET" and response.status == 200 and MODE != "never-hit":
            spoilt = bytes([data[0] ^ 1]) + data[1:] if MODE == "wrong-byte" else data
            KEPT[self.path] = (headers, spoilt)
        elif self.command != "GET":
            KEPT.pop(self.path, None)
        return self.answer(response.status, headers, data, "MISS")

    do_PUT = do_HEAD = do_DELETE = do_GET

    def answer(self, status, headers, body, cache_status):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Cache-Status", cache_status)
        self.end_headers()
        self.wfile.write(body)


class Admin(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(503 if MODE == "not-ready" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve(address, handler):
    host, port = address.rsplit(":", 1)
    http.server.ThreadingHTTPServer((host, int(port)), handler).serve_forever()


def main():
    args = parse()
    if MODE == "die":
        sys.exit(7)
    Proxy.origin = args.origin.removeprefix("http://")
    threading.Thread(target=serve, args=(args.listen, Proxy), daemon=True).start()
    serve(args.admin, Admin)


main()
