"""Peers that share no code with majordomus: written from the RFCs and the wire tables alone.

Nothing here imports majordomus, so a mistake in a codec cannot be made twice.
"""
