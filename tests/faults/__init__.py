"""Faults: crashes, disks that fail, clocks that jump, and what must hold all the same."""
