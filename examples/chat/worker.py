"""A chat room: what one member says goes to all others, as long as they read."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from majordomus import AsyncWorker, Request

UNREAD = 100
"""Lines that wait for a member who reads slowly; then the oldest are left out."""

worker = AsyncWorker("tcp://127.0.0.1:5555")
rooms: dict[str, set[asyncio.Queue[str | None]]] = defaultdict(set)


def say(room: str, line: str) -> None:
    for lines in rooms[room]:
        put(lines, line)


def put(lines: asyncio.Queue[str | None], line: str | None) -> None:
    if lines.full():
        lines.get_nowait()
    lines.put_nowait(line)


@worker.service("chat")
async def chat(request: Request) -> AsyncIterator[str]:
    """The request names the room and the member; parts are lines, in both directions."""
    room, _, name = request.text.partition("/")
    lines: asyncio.Queue[str | None] = asyncio.Queue(UNREAD)

    async def listen() -> None:
        async for part in request.parts:
            say(room, f"{name}: {part.text}")
        put(lines, None)

    say(room, f"{name} comes")
    rooms[room].add(lines)
    listening = asyncio.create_task(listen())
    try:
        yield f"welcome to {room}, {name}"
        while (line := await lines.get()) is not None:
            yield line
    finally:  # the member has finished, or is gone
        listening.cancel()
        rooms[room].discard(lines)
        say(room, f"{name} goes")


if __name__ == "__main__":
    asyncio.run(worker.run())
