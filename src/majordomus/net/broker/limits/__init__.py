"""Limits on the connections of a broker, and the state that libzmq's monitor makes necessary.

guard: applies the limits to a libzmq socket and ends connections
connection_limits: connections and unfinished handshakes per address
oversize_detector: finds connections that send an endless message
non_zmtp_detector: finds connections that do not use ZMTP
descriptors: a connection by its descriptor: identify, measure, shut down
connections: routing id by descriptor, and probes of ended connections
"""
