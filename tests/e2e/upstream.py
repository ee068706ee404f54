"""The example app of examples/fastapi-items, with a few routes more that let the end-to-end tests look behind the
gateway: what arrived, how much, and streams that never end."""

import asyncio
import pathlib
import sys
import zlib

from fastapi import Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "fastapi-items"))
from app import app  # noqa: E402

seen = {"requests": 0, "open_streams": 0}


class Count:
    """Counts every request and WebSocket that reaches the app, but for the question how many there were."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        if scope["type"] in ("http", "websocket") and scope["path"] != "/e2e/seen":
            seen["requests"] += 1
        await self.inner(scope, receive, send)


app.add_middleware(Count)


@app.get("/e2e/seen")
def what_was_seen() -> dict:
    return seen


@app.get("/e2e/public/headers")
@app.get("/e2e/optional/headers")
@app.get("/e2e/headers")
def headers(request: Request) -> dict:
    return {
        "path": request.scope["raw_path"].decode(),
        "client": request.client.host if request.client else None,
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in request.scope["headers"]],
    }


@app.get("/e2e/toggle")
def toggle() -> dict:
    return {"toggle": True}


@app.put("/e2e/upload")
async def upload(request: Request) -> dict:
    length, checksum = 0, 0
    async for chunk in request.stream():
        length += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
    return {"length": length, "crc32": checksum}


@app.get("/e2e/sleep/{milliseconds}")
async def sleep(milliseconds: int) -> dict:
    await asyncio.sleep(milliseconds / 1000)
    return {"slept": milliseconds}


def stream(source) -> StreamingResponse:
    async def counted():
        seen["open_streams"] += 1
        try:
            async for chunk in source:
                yield chunk
        finally:
            seen["open_streams"] -= 1

    return StreamingResponse(counted(), media_type="text/event-stream")


@app.get("/e2e/events")
async def events() -> StreamingResponse:
    """Server-sent events without end, 4 KiB each, a hundred a second."""

    async def source():
        number = 0
        while True:
            yield f"id: {number}\ndata: {'x' * 4096}\n\n".encode()
            number += 1
            await asyncio.sleep(0.01)

    return stream(source())


@app.get("/e2e/firehose")
async def firehose() -> StreamingResponse:
    """Bytes without end, as fast as they are taken."""

    async def source():
        while True:
            yield b"data: " + b"x" * 65536 + b"\n\n"
            await asyncio.sleep(0)  # lets the app notice that the client left

    return stream(source())


@app.websocket("/e2e/ws")
@app.websocket("/e2e/ws-brief")
@app.websocket("/e2e/ws-undeclared")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json({"user": socket.headers.get("x-auth-user")})
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                await socket.send_bytes(message["bytes"])
            else:
                await socket.send_text(message["text"])
    except WebSocketDisconnect:
        return
