cimport majordomus.net.deadline as deadline
# Compiled, `call` parses its eleven keywords without a look-up of each default.
from majordomus.net.client.async_call_runner cimport start_call
from majordomus.net.client.calls cimport make_call, result
