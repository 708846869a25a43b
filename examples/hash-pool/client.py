"""Sends several words at once and shows a bar for each: python client.py WORD …"""

import asyncio
import sys

from rich.console import Console
from rich.progress import Progress

from majordomus import AsyncClient


async def stretch(client: AsyncClient, word: str, bars: Progress) -> str:
    """One word, one bar; returns the hash."""
    bar = bars.add_task(word, total=100)
    result = ""
    async for part in client.stream("stretch", word, timeout=120):
        result = part.text
        if result.endswith(" %"):
            bars.update(bar, completed=int(result.removesuffix(" %")))
    bars.update(bar, completed=100)
    return result


async def main(words: list[str]) -> None:
    """All words at once."""
    async with AsyncClient("tcp://127.0.0.1:5555") as client:
        with Progress(console=Console(stderr=True)) as bars:
            results = await asyncio.gather(*(stretch(client, word, bars) for word in words))
    for word, result in zip(words, results, strict=True):
        print(f"{result}  {word}")


asyncio.run(main(sys.argv[1:] or ["alpha", "beta", "gamma", "delta"]))
