"""Faults: crashes, failing disks and jumping clocks, each broken alone, and the promises that hold all the same."""
