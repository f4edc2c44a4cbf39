"""Bench: what the system does in a second, as ratios within one run (`make bench`).

Services run on one core, load and receivers on another. Absolute figures depend on the machine and
the hour; a ratio compares two ways of doing the same work, measured in turn within the same minutes.
"""
