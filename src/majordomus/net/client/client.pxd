cimport majordomus.net.deadline as deadline
# Compiled, `call` parses its eleven keywords without a look-up of each default.
from majordomus.net.client.call_runner cimport run_call
from majordomus.net.client.calls cimport make_call, result
