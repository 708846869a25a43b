"""RFC 9 as a worker: durable requests at a broker that has no store, whoever made it.

    majordomus titanic --store sqlite:store.db --broker tcp://broker:5555 --dialect mdp01

It serves `titanic.request`, `titanic.reply` and `titanic.close`, and calls the services that the
requests name at the same broker. A broker of majordomus with a store needs none of this.

service: the three services, and the calls.
writes: the store's thread for an event loop.
"""
