"""Keys, certificates, passwords, tokens and access rules, and the files that hold them.

acl: access rules as a TOML file.
certificates: CURVE key pairs in three file formats.
files: reads and writes files that hold secrets.
keys: the CURVE keys that may connect, and the identity of each.
passwords: password hashes of users.
revocations: a file of revoked tokens and sessions.
tokens: signed tokens, the keys that sign them, and their verification.
watched: files that are read again when they change.
"""
