"""A notes API without a line of authentication code. Its documentation page is FastAPI's own, with Swagger UI served
from local files (the folder in $SWAGGER_UI) instead of a CDN."""

import os
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

app = FastAPI(title="Notes", docs_url=None, redoc_url=None)
app.mount("/assets", StaticFiles(directory=os.environ["SWAGGER_UI"]))

UserId = Annotated[str, Header(alias="X-Auth-User", include_in_schema=False)]
Scopes = Annotated[str, Header(alias="X-Auth-Scopes", include_in_schema=False)]


class Note(BaseModel):
    text: str


notes: dict[int, Note] = {1: Note(text="buy oil for the hinges")}


@app.get("/docs", include_in_schema=False)
def documentation() -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Notes",
        swagger_js_url="/assets/swagger-ui-bundle.js",
        swagger_css_url="/assets/swagger-ui.css",
        swagger_favicon_url="/assets/favicon-32x32.png",
    )


@app.get("/")
def home() -> dict[str, str]:
    return {"message": "notes; see /docs"}


@app.get("/users/me")
def me(user: UserId, scopes: Scopes = "") -> dict:
    return {"id": user, "scopes": scopes.split(",") if scopes else []}


@app.get("/notes")
def list_notes() -> dict[int, Note]:
    return notes


@app.post("/notes", status_code=201)
def write_note(note: Note) -> Note:
    notes[max(notes, default=0) + 1] = note
    return note


@app.delete("/notes/{note_id}", status_code=204)
def delete_note(note_id: int) -> None:
    if notes.pop(note_id, None) is None:
        raise HTTPException(404, "no such note")
