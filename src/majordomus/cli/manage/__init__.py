"""Commands that make or check files.

keygen: `majordomus keygen`
passwd: `majordomus passwd`
token: `majordomus token`
acl: `majordomus acl`
proto: `majordomus proto`
diff: `majordomus diff`
stubs: `majordomus stubs`
profile: `majordomus profile`
completion: `majordomus completion`
"""
