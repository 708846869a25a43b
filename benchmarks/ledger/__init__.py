"""Each call has one outcome, whatever becomes of brokers and workers: run `benchmarks.ledger`.

Programs of `majordomus` run as real processes and are killed, stopped and restarted at random while
clients call. Both sides keep a ledger in files; the audit compares them.

books: the entries of both ledgers, and the audit of them
programs: starts, stops and kills `majordomus broker` and `majordomus worker`
worker: the worker object that these programs run
calls: what the clients ask for, and what they note
run: one run: programs, clients, faults, audit, what is left
"""
