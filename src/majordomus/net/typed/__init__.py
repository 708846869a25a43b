"""What clients and workers share of annotations.

events: events whose bodies are decoded by an annotation.
"""
