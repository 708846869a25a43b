"""Prints the next six prices that a pattern stands for: python watch.py 'prices.eur.*'"""

import asyncio
import sys

from majordomus import AsyncClient


async def main(pattern: str) -> None:
    """Subscribes, and leaves after six events."""
    async with AsyncClient("tcp://127.0.0.1:5555") as client:
        count = 0
        async for event in await client.subscribe(pattern):
            print(event.topic, event.text)
            count += 1
            if count == 6:
                break
        print("gold costs", (await client.call("price", "gold")).text)


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "prices.>"))
