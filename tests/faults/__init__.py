"""Faults: crashes, failing disks and jumping clocks, and what must hold all the same."""
