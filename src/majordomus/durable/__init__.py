"""Stores for durable requests. They execute the operations of `core.broker.durable.records` and
decide nothing.

store: the interface of a store, and how a batch of operations becomes its primitives.
batches: the operations of a batch by kind, and how many make one.
rows: rows as values of the statements, and their checksums.
sums: the bytes under the checksum of a row, with a twin in C.
memory: a store in memory, for tests and the simulation.
sqlite: the store in an SQLite file.
driver: the one copy of SQLite that serves it: apsw where installed, else Python's own.
files: what stands beside the file: its lock, its ballast, its disk.
queries: the named statements of the folder `sql`.
opening: the store that a setting names.
runner: the thread that writes batches, one after the other.
offline: verify, compact and copy the file of a broker that does not run.
wal: what the file of the write-ahead log says of itself.
online: copy the file of a broker that runs.
"""
