"""What is said on the bus, as it is said: server-sent events, and the same over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from brainjar.web.door import Door
from brainjar.web.stream import Full, Id, Listener, Said, Stream

PING_S: Final = 15.0
AGAIN_MS: Final = 2000
"""How long a browser waits until it comes again."""
SLOW: Final = 4000
"""WebSocket: ended because it did not take what was said, or the dashboard ends."""


class Live:
    def __init__(self, stream: Stream, door: Door) -> None:
        self._stream, self._door = stream, door

    def _join(self, last: str) -> tuple[Listener, list[Said] | None]:
        """`last`: the id of what was heard last; "": from now on. None: some of what came after it is lost."""
        try:
            listener = self._stream.join()
        except Full:
            raise HTTPException(503, "as many listen as may", headers={"Retry-After": "5"}) from None
        if not last:
            return listener, []
        id = Id.parse(last)
        return listener, None if id is None else self._stream.ring.after(id)

    async def events(self, request: Request) -> Response:
        listener, before = self._join(request.headers.get("last-event-id", ""))
        media, headers = "text/event-stream", {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._told(request, listener, before), media_type=media, headers=headers)

    async def _told(self, request: Request, listener: Listener, before: list[Said] | None) -> AsyncIterator[bytes]:
        try:
            yield b"retry: %d\n\n" % AGAIN_MS
            yield b"event: RESET\ndata: {}\n\n" if before is None else b"".join(map(_sse, before))
            while True:
                try:
                    said = await asyncio.wait_for(listener.queue.get(), PING_S)
                except TimeoutError:
                    self._door.admit(request)  # the token may be another one by now
                    yield b": still here\n\n"
                    continue
                if said is None:
                    return
                yield _sse(said)
        except HTTPException:
            return
        finally:
            self._stream.leave(listener)

    async def socket(self, socket: WebSocket) -> None:
        """Each event as a text: `{"id": ..., "event": ...}`, what SSE has as id and data. What the client says is not listened to."""
        try:
            self._door.admit(HTTPConnection(socket.scope))
            listener, before = self._join(socket.query_params.get("since", ""))
        except HTTPException as error:
            await socket.send_denial_response(Response(error.detail, error.status_code, error.headers))
            return
        await socket.accept()
        told = asyncio.create_task(self._tell(socket, listener, before))
        try:
            with suppress(WebSocketDisconnect, KeyError):  # KeyError: what it says is no text
                while not told.done():
                    heard = asyncio.create_task(socket.receive_text())
                    await asyncio.wait({told, heard}, return_when=asyncio.FIRST_COMPLETED)
                    if heard.done():
                        heard.result()
                    else:
                        heard.cancel()
        finally:
            told.cancel()
            self._stream.leave(listener)

    async def _tell(self, socket: WebSocket, listener: Listener, before: list[Said] | None) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            if before is None:
                await socket.send_text('{"id":"","event":{"type":"RESET"}}')
            for said in before or ():
                await socket.send_text(_text(said))
            while (said_now := await listener.queue.get()) is not None:
                await socket.send_text(_text(said_now))
            await socket.close(SLOW)


def _sse(said: Said) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (str(said.id).encode(), said.type.encode(), said.body)


def _text(said: Said) -> str:
    return f'{{"id":"{said.id}","event":{said.body.decode()}}}'
