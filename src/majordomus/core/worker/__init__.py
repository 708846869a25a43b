"""The worker's machine.

session: answers of the worker, and messages of the broker
session_base: state of the session, registration, and what follows from the end of a connection
streams: parts and credit of dispatches
encoding: the messages of a worker, in each dialect
login: a session that logs in and renews its token
"""
