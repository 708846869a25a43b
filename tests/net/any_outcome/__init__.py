"""Whatever a handler, hook or caller does, a call has exactly one outcome, and nobody else is hurt.

recipes: values, exceptions and behaviours as data, and how they are made real
handlers: one handler of each shape, which does what the body of its request asks for
world: brokers, a worker and clients that all examples share, and what must be whole after each
test_any_outcome: the property; `ANY_OUTCOME=full` makes 20,000 examples and prints the counts
"""
