"""Entities and tables of the broker. No rule lives here.

access_rules: rules over users, groups, actions and names; the names of tenants.
account: the bytes that peers make the broker hold.
contract_table: the contracts that workers state.
dispatch_table: the requests that hold a slot, by dispatch id.
history: ended requests that are kept for `mmi.explain`.
identity: the user of a connection or of a request.
peers: one peer, with its outbox.
refusals: how often the same thing was refused in a row.
registry: all of these tables, and the counters.
request_stream: the credit and the waiting parts of the streams of one request.
requests: one accepted request.
services: one service, with its fair queue.
subscribers: one subscriber, with its session.
timer_wheel: deadlines, with O(1) for each item.
times: histograms of waiting and service times, merged by addition.
topics: subscriptions by pattern, in a tree of tokens.
transitions: the states of requests, workers and peers, as tables.
user_account: the account of one user.
workers: one registered worker.
"""
