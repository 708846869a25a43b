"""Reads a broker's snapshot (`mmi.metrics`) and shows it to other programs.

histogram: sums, differences and percentiles of the broker's histograms.
snapshot: the sections of a snapshot as structs, and the questions that fetch them.
ended: requests as they end (`mmi.ended`).
series: the snapshots of one broker as bounded counters, so that no peer can make many series.
exporter: the metrics of Prometheus, made from them (needs the extra `observe`).
web: /metrics, /healthz and /readyz over HTTP (needs the extra `observe`).
"""
