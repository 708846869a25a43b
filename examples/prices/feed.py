"""Publishes prices, and answers what the last ones were."""

import asyncio
import itertools

from majordomus import AsyncWorker, Request

worker = AsyncWorker("tcp://127.0.0.1:5555")
last = {"eur.usd": 1.08, "eur.chf": 0.95, "gold": 2_400.0}


@worker.service("price")
async def price(request: Request) -> str:
    """The last price: events are delivered at most once, so who needs one now asks."""
    return f"{last[request.text]:.2f}"


async def publish() -> None:
    """A new price of one thing after the other."""
    await worker.wait_ready(60)
    for name in itertools.cycle(list(last)):
        last[name] *= 1.01
        worker.publish(f"prices.{name}", f"{last[name]:.2f}")
        await asyncio.sleep(0.05)


async def main() -> None:
    """Serves and publishes until it is stopped."""
    publishing = asyncio.create_task(publish())
    await worker.run()
    publishing.cancel()


if __name__ == "__main__":
    asyncio.run(main())
