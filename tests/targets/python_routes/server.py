"""A server with routes of many kinds, by the framework that is named: server.py fastapi|flask|django. Says `port N`, and serves until it is
told to end. There is no model in it.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from serving import serve_asgi, serve_wsgi


def fastapi():
    from fastapi import APIRouter, FastAPI, HTTPException

    app, inner = FastAPI(), FastAPI()
    items, deep = APIRouter(prefix="/items"), APIRouter()

    @items.get("/{item}")
    @items.put("/{item}")
    def item(item: str):
        if item == "missing":
            raise HTTPException(404)
        return item

    @deep.get("/{number:int}")
    async def number(number: int):
        return number

    @inner.get("/ping/{x}")
    def ping(x: str):
        return x

    @app.get("/files/{path:path}")
    def file(path: str):
        return path

    @app.post("/fail")
    def fail():
        raise HTTPException(503)

    items.include_router(deep, prefix="/deep")
    app.include_router(items, prefix="/v1")
    app.mount("/inner", inner)

    serve_asgi(app)


def flask():
    from flask import Blueprint, Flask, abort

    app, blueprint = Flask("routes"), Blueprint("v1", "v1", url_prefix="/v1")

    @blueprint.get("/items/<int:item>")
    @blueprint.put("/items/<int:item>")
    def item(item):
        return str(item)

    @blueprint.get("/items/<name>")
    def named(name):
        return abort(404) if name == "missing" else name

    @blueprint.get("/items/new")
    def new():
        return "new"

    @app.get("/files/<path:path>")
    def file(path):
        return path

    @app.get("/strict/")
    def strict():
        return "strict"

    @app.post("/fail")
    def fail():
        abort(503)

    app.register_blueprint(blueprint)
    serve_wsgi(app)


def django():
    import types

    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import include, path, re_path

    urls = types.ModuleType("urls")

    def answer(status=200):
        return lambda request, **variables: HttpResponse(repr(variables), status=status)

    books = [path("<int:book>/", answer()), path("<slug:title>/read", answer())]
    urls.urlpatterns = [
        path("books/", include(books)),
        re_path(r"^old/(?P<year>[0-9]{4})/$", answer()),
        path("fail", answer(503)),
        path("", answer()),
    ]
    sys.modules["urls"] = urls
    settings.configure(ROOT_URLCONF="urls", ALLOWED_HOSTS=["*"], SECRET_KEY="none")
    serve_wsgi(get_wsgi_application())


{"fastapi": fastapi, "flask": flask, "django": django}[sys.argv[1]]()
