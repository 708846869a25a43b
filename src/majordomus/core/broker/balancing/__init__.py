"""Load balancing: which free worker of a service gets the next request.

guarded: keeps the broker correct when a custom strategy is wrong or raises.
random_two: `random-two`.
ranked: `round-robin`, `least-recently-used` and `least-load`.
registry: strategies by name, and the weight of a worker.
ring: the nodes of rings of workers.
rng: the random numbers of the strategies.
sticky: `sticky`.
strategy: the interface of a strategy, and `least-outstanding`.
"""
