"""Egress: which addresses may be dialled. Pure: it decides, it never connects."""
