"""Supervise: runs the four services as child processes of `hooktide up`."""
