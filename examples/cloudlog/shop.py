"""A shop that logs to the cloud logger and shows two live watches; start as many as you like.

majordomus broker
majordomus worker majordomus.contrib.cloudlog:collector
python examples/cloudlog/shop.py
majordomus logs --follow               and, elsewhere,  majordomus logs --watch --follow
"""

import logging
import sys
import time

from majordomus.contrib.cloudlog import CloudLogHandler, watch

ARTICLES = ("apple", "pear", "plum")

log = logging.getLogger("orders")


def serve(customers: int, pause: float) -> None:
    """Takes orders until everything is sold, or nobody comes any more."""
    stock = dict.fromkeys(ARTICLES, 20)
    for customer in range(1, customers + 1):
        article = ARTICLES[customer % len(ARTICLES)]
        wanted = 1 + customer % 5
        if stock[article] < wanted:
            log.warning("%d %ss are wanted, %d are there", wanted, article, stock[article])
        else:
            stock[article] -= wanted
            order = {"customer": customer, "article": article, "count": wanted}
            log.info("order %d: %d %ss", customer, wanted, article, extra={"data": order})
        watch("customers", customer)
        watch("stock", ", ".join(f"{count} {name}s" for name, count in stock.items()))
        if not any(stock.values()):
            log.error("everything is sold")
            return
        time.sleep(pause)


if __name__ == "__main__":
    broker = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555"
    logging.basicConfig(
        level=logging.INFO,
        handlers=[logging.StreamHandler(), CloudLogHandler(broker, application="shop")],
    )
    serve(customers=int(sys.argv[2]) if len(sys.argv) > 2 else 1000, pause=0.2)
