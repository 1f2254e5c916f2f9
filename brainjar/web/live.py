"""What is said on the bus, as it is said: server-sent events, and the same over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Final

import anyio
import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from brainjar.client.find import Jar
from brainjar.errors import BrainjarError
from brainjar.web.door import Door
from brainjar.web.stream import Full, Id, Listener, Said, Stream, earlier

PING_S: Final = 15.0
"""After so long without an event a listener is told that it is still heard, and so often it is looked whether it may still listen."""
AGAIN_MS: Final = 2000
"""How long a browser waits until it comes again."""
ASKING: Final = 4
"""Threads that ask the jar what was said before."""
RESET: Final = Said(Id(0, 0), "RESET", b'{"type":"RESET"}')
"""What was missed is not known any more."""
SLOW: Final = 4000
"""WebSocket: ended because it did not take what was said, or the dashboard ends."""


class Live:
    def __init__(self, stream: Stream, door: Door, jar: Callable[[], Jar]) -> None:
        """`jar`: raises `BrainjarError` where there is none."""
        self._stream, self._door, self._jar = stream, door, jar
        self._asking = anyio.CapacityLimiter(ASKING)

    def _join(self) -> Listener:
        try:
            return self._stream.join()
        except Full:
            raise HTTPException(503, "as many listen as may", headers={"Retry-After": "5"}) from None

    async def _said(self, listener: Listener, last: str) -> AsyncIterator[Said]:
        """What is said from now on or, where `last` is the id of what was heard last, from then on."""
        sent = None
        if last:
            id = Id.parse(last)
            before = None if id is None else self._stream.ring.after(id)
            if id is not None and before is None:
                before = await self._earlier(id)
            for said in before or ():
                sent = said.id
                yield said
            if before is None:
                yield RESET
        while (said_now := await listener.queue.get()) is not None:
            if sent is None or said_now.id > sent:
                yield said_now

    async def _earlier(self, id: Id) -> list[Said] | None:
        """From the jar: this dashboard may be younger than what was heard last."""

        def ask() -> list[Said] | None:
            try:
                return earlier(self._jar(), id)
            except BrainjarError:
                return None

        return await anyio.to_thread.run_sync(ask, limiter=self._asking)

    async def events(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        if not last and (last := request.query_params.get("since", "")) and Id.parse(last) is None:
            raise HTTPException(422, "since: wanted the id of an event, such as 3.14")
        media, headers = "text/event-stream", {"X-Accel-Buffering": "no"}
        if request.method == "HEAD":
            return Response(media_type=media, headers=headers)
        listener = self._join()
        said = self._said(listener, last)
        return StreamingResponse(self._told(request, listener, said), media_type=media, headers=headers)

    async def _told(self, request: Request, listener: Listener, said: AsyncIterator[Said]) -> AsyncIterator[bytes]:
        try:
            yield b"retry: %d\n\n" % AGAIN_MS
            async with aclosing(self._while_admitted(request, said)) as kept:
                async for one in kept:
                    yield b": still here\n\n" if one is None else _sse(one)
        finally:
            self._stream.leave(listener)

    async def _while_admitted(self, asks: HTTPConnection, said: AsyncIterator[Said]) -> AsyncGenerator[Said | None]:
        """Each of `said`, and None where nothing was said for a while, until `asks` would not be let in any more: the token may be another
        one by now.
        """
        clock = asyncio.get_running_loop().time
        looked = clock()
        pending: asyncio.Future[Said] | None = None
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(said))
                come, _ = await asyncio.wait({pending}, timeout=PING_S)
                if (now := clock()) - looked >= PING_S:
                    self._door.admit(asks)
                    looked = now
                if come:
                    one, pending = pending.result(), None
                    yield one
                else:
                    yield None
        except (HTTPException, BrainjarError, StopAsyncIteration):
            return
        finally:
            if pending is not None:
                pending.cancel()

    async def socket(self, socket: WebSocket) -> None:
        """Each event as a text: `{"id": ..., "event": ...}`, what SSE has as id and data. What the client says is not listened to."""
        try:
            self._door.admit(socket)
            listener = self._join()
        except HTTPException as error:
            await socket.send_denial_response(Response(error.detail, error.status_code, error.headers))
            return
        try:
            await socket.accept()
            told = asyncio.create_task(self._tell(socket, self._said(listener, socket.query_params.get("since", ""))))
            gone = asyncio.create_task(_gone(socket))
            try:
                await asyncio.wait({told, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                told.cancel()
                gone.cancel()
        finally:
            self._stream.leave(listener)

    async def _tell(self, socket: WebSocket, said: AsyncIterator[Said]) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            async with aclosing(self._while_admitted(socket, said)) as kept:
                async for one in kept:
                    if one is not None:
                        await socket.send_text(_text(one))
            await socket.close(SLOW)


async def _gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _sse(said: Said) -> bytes:
    if said is RESET:
        return b"event: RESET\ndata: %s\n\n" % said.body
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (str(said.id).encode(), said.type.encode(), said.body)


def _text(said: Said) -> str:
    return f'{{"id":"{"" if said is RESET else said.id}","event":{said.body.decode()}}}'
