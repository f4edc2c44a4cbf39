"""Translate: turns JSON into the contract's messages and back. Pure.

request_body → [translate] → upstreams → [translate] → responses

Only this package knows both forms of a resource. Routes themselves build only messages of a few plain values, such as an id.
"""
