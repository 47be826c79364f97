"""A server made of the standard library alone, whose models are called for its requests in many ways.

Usage: server.py tasks|streams|threads. Says `port N`, and serves until its input is closed. `tasks`: a task for each request. `streams`: one
for each connection (`asyncio.start_server`). `threads`: a thread for each connection (`http.server`).

`GET /KIND/N` calls the model with the number N modulo 16: `direct` in the task or thread that answers, `nested` twice, in tasks of their own,
`thread` in a thread that is given a copy of the context, `executor` in one that is not, `after` once the answer is written, `stream` in the
middle of it, `none` not at all; `streams` takes `after` for `direct`, because what a task does between two requests is nobody's. Two other models are called all the time, for nobody: in a thread, and in a task that was there from the
beginning.
"""

import asyncio
import contextvars
import http.server
import sys
import threading
import time

VARIABLE = contextvars.ContextVar("variable", default=0)


class Model:
    def predict(self, number):
        return self.transform(number) + 1

    def transform(self, number):
        return sum(len(str(value)) for value in range(number % 50 + 50))


MODELS = [type(f"Model{number:02}", (Model,), {})() for number in range(16)]
OF_THREAD, OF_TASK = type("Model99", (Model,), {})(), type("Model98", (Model,), {})()


def predict(number):
    return MODELS[number % 16].predict(number)


async def later(number):
    await asyncio.sleep(0.001)
    VARIABLE.set(number)
    return predict(number)


async def call(kind, number):
    loop = asyncio.get_running_loop()
    if kind == "direct":
        await asyncio.sleep(0)
        predict(number)
    elif kind == "nested":
        await asyncio.gather(later(number), asyncio.ensure_future(later(number)))
    elif kind == "thread":
        await loop.run_in_executor(None, contextvars.copy_context().run, predict, number)
    elif kind == "executor":
        await loop.run_in_executor(None, predict, number)


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def answer(path, write, kinds={}):
    kind, number = path.decode().split("/")[1:3]
    kind, number = kinds.get(kind, kind), int(number)
    await call(kind, number)
    if kind == "stream":
        write(HEAD + b"3\r\none\r\n")
        await asyncio.sleep(0)
        predict(number)
        write(b"3\r\ntwo\r\n0\r\n\r\n")
        return
    write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    if kind == "after":
        await asyncio.sleep(0)
        predict(number)


class Tasks(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.unread = b""

    def data_received(self, data):
        self.unread += data
        while b"\r\n\r\n" in self.unread:
            head, self.unread = self.unread.split(b"\r\n\r\n", 1)
            path = head.split(b" ")[1]
            asyncio.get_running_loop().create_task(answer(path, self.transport.write))


async def streams(reader, writer):
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        await answer(head.split(b" ")[1], writer.write, {"after": "direct"})


async def call_for_nobody():
    while True:
        await asyncio.sleep(0.003)
        OF_TASK.predict(7)


def call_for_nobody_in_a_thread():
    while True:
        time.sleep(0.003)
        OF_THREAD.predict(8)


def wait_for_the_end():
    sys.stdin.read()


async def serve(kind):
    loop = asyncio.get_running_loop()
    nobody = loop.create_task(call_for_nobody())
    if kind == "tasks":
        server = await loop.create_server(Tasks, "127.0.0.1", 0)
    else:
        server = await asyncio.start_server(streams, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, wait_for_the_end)
    nobody.cancel()
    server.close()


class Threads(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        kind, number = self.path.split("/")[1:3]
        if kind != "none":
            predict(int(number))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def main():
    threading.Thread(target=call_for_nobody_in_a_thread, daemon=True).start()
    if sys.argv[1] != "threads":
        return asyncio.run(serve(sys.argv[1]))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Threads)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("port", server.server_address[1], flush=True)
    wait_for_the_end()


main()
