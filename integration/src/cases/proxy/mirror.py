"""A mirror for steps: the files of a folder, over TLS with its own certificate, and a proxy that connects for `mirror.test` to it.
Says the ports of both when it serves."""
import http.server
import socket
import ssl
import sys
import threading

folder, certificate, key = sys.argv[1:4]


class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args):
        super().__init__(*args, directory=folder)

    def log_message(self, *args):
        pass


class Proxy(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        if self.path != "mirror.test:443":
            self.send_error(403)
            return
        with socket.create_connection(server.server_address) as other:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pass_on, args=(other, self.connection), daemon=True)
            back.start()
            pass_on(self.connection, other)
            back.join()

    def log_message(self, *args):
        pass


def pass_on(source, target):
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Files)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
proxy = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Proxy)
threading.Thread(target=proxy.serve_forever, daemon=True).start()
print(server.server_address[1], proxy.server_address[1], flush=True)
server.serve_forever()
