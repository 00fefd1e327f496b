"""The service: a WSGI application on the standard library's server."""

import json
import os
import signal
import sys
from urllib.parse import parse_qs
from wsgiref.simple_server import make_server

from .book import Book, is_compiled

LONGEST = 4096


def application(book: Book):
    """Returns the WSGI application over `book`."""

    def answer(environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
        if path == "/health":
            return send(start_response, "200 OK", "application/json", json.dumps({"ok": True, "compiled": is_compiled()}))
        if path != "/":
            return send(start_response, "404 Not Found", "text/plain", "no such page\n")
        if method == "POST":
            size = min(int(environ.get("CONTENT_LENGTH") or 0), LONGEST)
            form = parse_qs(environ["wsgi.input"].read(size).decode("utf-8", "replace"))
            try:
                book.add(form.get("text", [""])[0])
            except ValueError as error:
                return send(start_response, "400 Bad Request", "text/plain", f"{error}\n")
        return send(start_response, "200 OK", "text/html; charset=utf-8", book.html())

    return answer


def send(start_response, status, kind, text):
    body = text.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def main() -> None:
    port = int(os.environ.get("PORT", "8000"))
    # As process 1 of a container nobody sets this for us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with make_server("", port, application(Book())) as server:
        print(f"listening on {port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
