"""Service contracts: what a service takes and returns, as data.

A worker derives the contract of a service from its handler (net/worker/typed.py reads the
signature). Its hash travels with READY, the contract itself when the broker asks for it
(docs/spec/mdp-0.3.md). Clients and tools read it: typed calls, stubs, OpenAPI, AsyncAPI, `diff`.

The package imports nothing of majordomus but `errors` and `messages`. A broker loads `model` and
`compare` alone, which need no protobuf library.

model: the contract, its canonical bytes, its hash, and the parser
compare: the changes between two contracts, and which of them break callers
schemas: the JSON Schema of an annotation
protos: the protobuf descriptor of an annotation
facts: the annotations and arguments that a contract is made of
derive: makes a contract from annotations, a docstring and the arguments of a decorator
catalog: the contracts of several services in one file
openapi: the OpenAPI and AsyncAPI documents of a catalog
stubs: typed Python clients of a catalog
"""
