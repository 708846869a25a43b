"""Commands that make or check files.

keygen: `majordomus keygen`
passwd: `majordomus passwd`
token: `majordomus token`
acl: `majordomus acl`
proto: `majordomus proto`
completion: `majordomus completion`
"""
