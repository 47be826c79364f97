"""Servers of an application on a port of their own, which they say: `port N`."""

import asyncio


def serve_asgi(application):
    """Until it is told to end."""
    import uvicorn

    async def serve():
        server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning"))
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print("port", server.servers[0].sockets[0].getsockname()[1], flush=True)
        await serving

    asyncio.run(serve())


def serve_wsgi(application):
    """Until it is told to end."""
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, application, threaded=True)
    print("port", server.server_port, flush=True)
    server.serve_forever()
