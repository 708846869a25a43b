"""Knowledge of processor caches, and twins for the compiler. No rule lives here.

arithmetic: integer functions that make no object where they are compiled.
links: changes links and entries of rings and lists, most without counting references.
prefetch: the index of services by name, which looks ahead in a batch.
prefetch_hints: the prefetch instruction, for each pointer that is followed.
"""
