"""The broker around its machine: endpoints, loop, hooks, security and limits.

broker: `Broker`, its life from binding to the end
loop: the turns around the machine: wait → receive → tick → send
program: what hooks and other threads may call, and the tasks for the broker's thread
hooks: the methods that a program overrides, and the chain that calls them
hook_thread: the thread of `async def` hooks
fact_log: facts of the machine as lines of the log
audit_log: refusals, revocations and changes as JSON lines that are on disk
access_rules_watch: reloads the file of access rules
listener: the interface of a listener, and its constants
open_store: the store of a broker, and a machine that continues from it
open_listener: which listener serves an endpoint
zmtp_listener: endpoints on our own ZMTP
zmq_listener: endpoints on libzmq
limits/: limits on connections, and the connections of a libzmq socket
security/: encryption, authentication, and the check of both before anything is bound
"""
