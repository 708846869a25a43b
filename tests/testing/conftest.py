"""The fixtures of the plugin: in a checkout it is not registered by an entry point."""

from majordomus.testing.plugin import any_broker, pytest_pyfunc_call, test_broker

__all__ = ["any_broker", "pytest_pyfunc_call", "test_broker"]
