"""Encryption and authentication of a broker.

policy: the security settings, checked together before anything is bound
authenticator: which credentials are accepted, and which identity they prove
authentication: the identity behind each message of a libzmq listener
direct_authentication: the identity of each connection of our own ZMTP
zap: the ZAP handler (RFC 27), through which libzmq asks about a new connection
curve: CURVE key pairs, the broker's certificate, and socket options
"""
