"""The hooks of a broker: decisions that the embedding program makes (rule 11).

actions: what a hook may return, as data.
effects: what a decision may cause, as Protocols.
holding: asks the hooks, holds what waits for them, and carries out their actions.
installed: the hooks that a machine has, if it has any.
interface: the methods that the core calls, and hooks that decide nothing.
pending: decisions that are not made yet, and the requests that wait for them.
views: what a hook sees of a request, a reply or a client, and may change.
"""
