"""Commands that ask a running broker, call it or check this machine.

call: `majordomus call`
call_data: `majordomus call --data`
describe: `majordomus describe`
subscribe: `majordomus subscribe`
publish: `majordomus publish`
services: `majordomus services`
workers: `majordomus workers`
top: `majordomus top`
top_view: what it shows: rates, sorted and scrolled rows
tail: `majordomus tail`
explain: `majordomus explain`
durable: `majordomus durable`
logs: `majordomus logs`
doctor: `majordomus doctor`
"""
