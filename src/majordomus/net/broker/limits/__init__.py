"""Limits on the connections of a broker, and what libzmq's monitor makes necessary.

connection_limits: connections and unfinished handshakes per address
connection_watch: applies them to a libzmq socket, and reports ended connections
descriptors: a connection of libzmq by its descriptor: identify it, shut it down
connections: routing id by descriptor, and probes of ended connections
"""
