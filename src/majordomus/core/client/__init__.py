"""The client's machine.

session: commands of the caller, and messages of the broker
session_base: state of the session, sending, and how calls end
calls: open calls, and where each of them waits
streams: parts and credit of calls
encoding: the messages of a client, in each dialect
login: a session that logs in and renews its token
"""
