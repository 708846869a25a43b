"""The wire formats of all dialects, as pure functions over frames. No state, no I/O.

codecs: the table of the legacy codecs.
command: a legacy message as data, and the methods that every legacy codec has.
delphi: the dialect of grijjy/DelphiZeroMQ.
fields: checks of service, address and body that all legacy dialects share.
mdp01: the layout of MDP/0.1 (RFC 7).
mdp02: the layout of MDP/0.2 (RFC 18).
mdp02d: the layout of MDP/0.2 with delimiters, as the package `majortomo` uses it.
mdp03: the header of MDP/0.3.
metadata: the MessagePack maps behind an MDP/0.3 header.
murmur: MurmurHash2A, the checksum of Delphi messages.
octets: the fixed fields of an MDP/0.3 header, bytes to numbers and back.
recognise: finds the dialect of a message.
rfc: the codec of mdp01, mdp02 and mdp02d.
spec: the literals of all dialects.
topics: names of topics and patterns, and what a pattern matches.
"""
