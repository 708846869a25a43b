"""Commands that run something until it ends or is interrupted.

broker: `majordomus broker`
worker: `majordomus worker`
metrics: `majordomus metrics`
http_address: the address of /metrics, and the extra that it needs
worker_metrics: the metrics of a worker process
spans: the spans of brokers, for `metrics --otlp`
proxy: `majordomus proxy`
titanic: `majordomus titanic`
bench: `majordomus bench`
demo: `majordomus demo`
app: loads the program of a broker, and loads it again while the broker runs
supervise: restarts a broker that died
supervisor: restarts worker processes that died
demo_worker: the services of the demo's worker processes
"""
