"""The nine invariants of the design, a file for each: promises of the engine, most of them kept bit for bit.

An outcome is a record and its curves without what was measured; the record holds the hash of the trained weights.
"""
