"""A broker in a Python program; `majordomus broker` is the same as a command."""

from majordomus import Broker, BrokerSettings

Broker(BrokerSettings(name="chat"), bind="tcp://127.0.0.1:5555").run()
