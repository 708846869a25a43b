"""The broker; `majordomus broker` does the same."""

from majordomus import Broker

if __name__ == "__main__":
    Broker(bind="tcp://127.0.0.1:5555").run()
