"""Supervise: the four services as child processes of `hooktide up`."""
