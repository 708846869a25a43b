"""Commands that ask a running broker, call it or check this machine.

call: `majordomus call`
subscribe: `majordomus subscribe`
publish: `majordomus publish`
services: `majordomus services`
workers: `majordomus workers`
top: `majordomus top`
explain: `majordomus explain`
logs: `majordomus logs`
doctor: `majordomus doctor`
"""
