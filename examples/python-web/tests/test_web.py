import io

import pytest

from app.book import Book, is_compiled
from app.web import application


def call(app, method="GET", path="/", body=b""):
    seen = {}

    def start_response(status, headers):
        seen["status"] = status

    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    text = b"".join(app(environ, start_response)).decode()
    return seen["status"], text


@pytest.fixture
def app():
    return application(Book())


def test_an_entry_is_shown_escaped(app):
    status, text = call(app, "POST", body=b"text=%3Cb%3Ehello%3C%2Fb%3E")
    assert status == "200 OK"
    assert "&lt;b&gt;hello&lt;/b&gt;" in text


def test_an_empty_entry_is_refused(app):
    assert call(app, "POST", body=b"text=+")[0] == "400 Bad Request"


def test_old_entries_make_room():
    book = Book(keep=2)
    for word in ["one", "two", "three"]:
        book.add(word)
    assert "one" not in book.html()


def test_the_extension_was_compiled():
    assert is_compiled()


def test_other_pages_are_not_found(app):
    assert call(app, path="/nowhere")[0] == "404 Not Found"
