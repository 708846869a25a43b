"""Commands that run something until it ends or is interrupted.

broker: `majordomus broker`
worker: `majordomus worker`
proxy: `majordomus proxy`
bench: `majordomus bench`
demo: `majordomus demo`
app: loads the program of a broker, and loads it again while the broker runs
supervise: restarts a broker that died
supervisor: restarts worker processes that died
demo_worker: the services of the demo's worker processes
"""
