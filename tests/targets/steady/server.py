"""Answers requests over HTTP/1.1, which a process that it has forked asks, one every five milliseconds. Ends at SIGTERM."""

import os
import signal
import time

# Without what `socket` imports: the folder of modules that comes along is small.
from _socket import AF_INET, SOCK_STREAM, socket

REQUEST = b"GET /steady HTTP/1.1\r\nHost: steady\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def ask(address) -> None:
    connection = socket(AF_INET, SOCK_STREAM)
    connection.connect(address)
    while True:
        connection.sendall(REQUEST)
        if not connection.recv(1024):
            return
        time.sleep(0.005)


def main() -> None:
    server = socket(AF_INET, SOCK_STREAM)
    server.bind(("127.0.0.1", 0))
    server.listen(1)
    client = os.fork()
    if client == 0:
        ask(server.getsockname())
        os._exit(0)

    def end(number, frame) -> None:
        os.kill(client, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    descriptor, _ = server._accept()
    connection = socket(fileno=descriptor)
    print("ready", flush=True)
    while connection.recv(1024):
        connection.sendall(ANSWER)


main()
