"""Peers that share no code with majordomus, written only from the RFCs and the pages in docs/spec.

No module of this package imports majordomus, so a mistake in a codec of majordomus is not repeated
here, and a test finds it.

loop: the socket and the clock of all peers, without the frames of a dialect
rfc: clients and workers of MDP/0.1 and MDP/0.2
mdp03: a client and a worker of MDP/0.3
delphi: a client and a worker of the Delphi dialect
majortomo_worker: a worker with PyPI's majortomo
rubbish: invalid messages, with the expected reaction of the broker
table: the clients and workers by the name of their dialect
serve: runs workers of one dialect as a process
process: starts other programs as processes and ends them
node: scripts with npm's zeromq
"""
