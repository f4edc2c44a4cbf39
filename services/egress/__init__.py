"""Egress: decides which URLs and addresses may be called. Pure: it never connects."""
