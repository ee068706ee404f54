"""An app with pages and an API, without a line of authentication code: it believes the gateway's headers.

GET /seen shows what arrived, for the tests."""

import html

from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
arrived: list[dict] = []
notes: list[str] = ["buy oil for the hinges"]

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<h1>{title}</h1>
<p id="user">{user}</p>
<p id="script">no script ran</p>
<script>document.getElementById('script').textContent = 'cookies: ' + document.cookie</script>
<ul id="notes">{notes}</ul>
<form id="write" method="post" action="/notes"><input name="text"><button>Write</button></form>
<form id="leave" method="post" action="/logout"><button>Sign out</button></form>
<p><a id="other" href="/page/other">another page</a></p></html>"""


@app.middleware("http")
async def remember(request: Request, call_next):
    if request.url.path != "/seen":
        arrived.append({
            "method": request.method, "target": request.url.path + ("?" + request.url.query if request.url.query else ""),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
        })
        del arrived[:-500]
    return await call_next(request)


@app.get("/seen")
def seen() -> list[dict]:
    return arrived


@app.get("/")
def home() -> HTMLResponse:
    return HTMLResponse('<!doctype html><html lang="en"><title>Home</title><h1>Home</h1><a id="in" href="/page/notes?of=me">Notes</a></html>')


@app.get("/page/{name}")
def page(name: str, request: Request) -> HTMLResponse:
    shown = {"title": name, "user": request.headers.get("x-auth-user", "nobody"), "notes": "\n".join(notes)}
    shown = {key: html.escape(value) for key, value in shown.items()}
    shown["notes"] = "".join(f"<li>{note}</li>" for note in shown["notes"].split("\n"))
    return HTMLResponse(PAGE.format(**shown))


@app.post("/notes")
def write(text: str = Form("")) -> RedirectResponse:
    notes.append(text)
    return RedirectResponse("/page/notes", 303)


@app.get("/api/{name}")
def api(name: str, request: Request) -> dict:
    return {"name": name} | {key: value for key, value in request.headers.items() if key.startswith("x-auth-")}


@app.post("/api/{name}", status_code=201)
def api_write(name: str) -> dict:
    return {"written": name}


@app.get("/cookies/{name}")
def cookies(name: str) -> HTMLResponse:
    """An app that sets a cookie of its own, and tries to set the gateway's."""
    answer = HTMLResponse("set")
    answer.headers.append("set-cookie", f"app={name}; Path=/")
    answer.headers.append("set-cookie", f"__Host-session={name}; Path=/; Secure")
    return answer
