# Applications as Starlette, FastAPI, Flask and Django keep them, made of nothing but the standard library.
import re
import sys
import types


def made(path, *bases):
    module, name = path.rsplit(".", 1)
    return type(name, bases, {"__module__": module})


def of(kind, **fields):
    made = kind()
    vars(made).update(fields)
    return made


Route = made("starlette.routing.Route")
APIRoute = made("fastapi.routing.APIRoute", Route)
Own = made("app.Route", Route)
WebSocketRoute = made("starlette.routing.WebSocketRoute")
Mount = made("starlette.routing.Mount")
Included = made("fastapi.routing._IncludedRouter")
Router = made("starlette.routing.Router")
Context = made("fastapi.routing._RouterIncludeContext")
FastAPI = made("fastapi.applications.FastAPI", made("starlette.applications.Starlette"))


def route(kind, path, pattern, methods):
    return of(kind, path=path, path_regex=re.compile(pattern), methods=methods, name="n", path_format="f")


inner = of(FastAPI, router=of(Router, routes=[route(APIRoute, "/x", "^/x$", {"GET"})]))
items = of(Router, routes=[route(APIRoute, "/{id}", "^/(?P<id>[^/]+)$", {"PUT", "GET"})])
unused = of(FastAPI, middleware_stack=None, router=of(Router, routes=[]))
app = of(FastAPI, middleware_stack=object(), router=of(Router, routes=[
    route(Route, "/plain", "^/plain$", None),
    of(WebSocketRoute, path="/socket"),
    of(Mount, path="/inner", path_regex=re.compile("^/inner/(?P<path>.*)$"), _base_app=inner),
    of(Mount, path="/static", path_regex=re.compile("^/static/(?P<path>.*)$"), app=object()),
    of(Included, original_router=items, include_context=of(Context, prefix="/v1")),
    route(Own, "/own", "^/own$", None),
]))

Rule, Part, Map = made("werkzeug.routing.rules.Rule"), made("werkzeug.routing.rules.RulePart"), made("werkzeug.routing.map.Map")


def text(content):
    return of(Part, content=content, static=True, final=False, suffixed=False, weight=(0, [], 0, []))


def rule(path, *parts, **fields):
    return of(Rule, rule=path, methods={"GET"}, websocket=False, build_only=False, strict_slashes=True, _parts=[text(""), *parts], **fields)


variable = of(Part, content=r"a(?P<__werkzeug_0>\d+)\Z", static=False, final=False, weight=(-1, [(0, -1)], -1, [50]))
Flask = made("flask.app.Flask")
unasked = of(Flask, _got_first_request=False)
flask = of(Flask, _got_first_request=True, url_map=of(Map, host_matching=False, _rules_by_endpoint={
    "one": [rule("/a<int:id>", text(""), variable)],
    "two": [rule("/b", text(""), text("b")), of(Rule, websocket=True)],
}))

RegexPattern, RoutePattern = made("django.urls.resolvers.RegexPattern"), made("django.urls.resolvers.RoutePattern")
URLPattern, URLResolver = made("django.urls.resolvers.URLPattern"), made("django.urls.resolvers.URLResolver")
integer, own = made("django.urls.converters.IntConverter")(), made("app.Converter")()
module = types.ModuleType("books")
books = of(URLResolver, pattern=of(RoutePattern, _route="books/", _regex="^books/", converters={}), urlconf_name=module)
module.urlpatterns = [
    of(URLPattern, pattern=of(RoutePattern, _route="<int:id>", regex=re.compile(r"^(?P<id>[0-9]+)\Z"), converters={"id": integer})),
    of(URLPattern, pattern=of(RoutePattern, _route="<own:id>", _regex=r"^(?P<id>x)\Z", converters={"id": own})),
]
root = of(URLResolver, pattern=of(RegexPattern, _regex="^/"), url_patterns=[
    books,
    of(URLResolver, pattern=of(RoutePattern, _route="none/", _regex="^none/", converters={}), urlconf_name=[]),
    of(URLPattern, pattern=of(RegexPattern, _regex="^old/$")),
])

print("{}", flush=True)
sys.stdin.read()
